#!/bin/sh
# What a guest's DHCP client does with an answer, told on stdout too.
[ "$1" = bound ] || exit 0
echo "ip=$ip/$mask mtu=$mtu dns=$dns routes=$staticroutes"
ip address replace "$ip/$mask" dev "$interface"
set -- $staticroutes
while [ $# -ge 2 ]; do
    ip route replace "$1" via "$2" dev "$interface"
    shift 2
done
