/* sudo for a guest whose only user may do everything: -u USER is ignored, -i and -s and no command at all give a root shell. */
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

int main(int count, char **words)
{
    gid_t groups[1] = {0};
    int at = 1;

    for (; at < count && words[at][0] == '-'; at++) {
        if (!strcmp(words[at], "-u"))
            at++;
        else if (!strcmp(words[at], "-i") || !strcmp(words[at], "-s")) {
            at = count;
            break;
        }
    }
    if (setgid(0) || setgroups(1, groups) || setuid(0)) {
        perror("sudo");
        return 1;
    }
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    if (at >= count)
        execl("/bin/sh", "-sh", (char *)0);
    else
        execvp(words[at], words + at);
    perror(at < count ? words[at] : "sh");
    return 127;
}
