/* frames INTERFACE: sends the frames that it reads, a line of hexadecimal digits each. What a guest's owner can do with its own card. */
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <netpacket/packet.h>
#include <unistd.h>

int main(int count, char **words) {
    char line[8192];
    unsigned char frame[4096];
    struct sockaddr_ll to = {.sll_family = AF_PACKET};
    int raw = socket(AF_PACKET, SOCK_RAW, 0);
    if (count != 2 || raw < 0 || !(to.sll_ifindex = if_nametoindex(words[1]))) return 1;
    while (fgets(line, sizeof line, stdin)) {
        size_t size = 0;
        while (size < sizeof frame && sscanf(line + 2 * size, "%2hhx", &frame[size]) == 1) size++;
        if (sendto(raw, frame, size, 0, (struct sockaddr *)&to, sizeof to) != (ssize_t)size) return 2;
        usleep(20000);
    }
    return 0;
}
