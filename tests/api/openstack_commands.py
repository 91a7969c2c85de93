# ruff: noqa: E501
"""Every network command of the stock `openstack` client, in an order in which each can be done.

A line is a command as a user would type it; `NAME=` before it keeps the id of
what it made, for `{NAME}` in later lines. tests/api/test_openstack.py runs all
of them against a server, and docs/reference/openstack.md tells which work.
"""

from __future__ import annotations

STORY = """
# Networks and subnets
net= network create --description d --mtu 1400 net
ext= network create --external --share ext
network list --long
network show net
network set --name net2 --tag red net
network unset --tag red net2
network set --name net net2
sub= subnet create --network net --subnet-range 10.7.0.0/24 --dns-nameserver 9.9.9.9 sub
sub6= subnet create --network net --ip-version 6 --subnet-range fd07::/64 sub6
extsub= subnet create --network ext --subnet-range 198.51.100.0/24 --no-dhcp extsub
subnet list --network net
subnet show sub
subnet set --description d --host-route destination=10.99.0.0/16,gateway=10.7.0.9 sub
subnet unset --host-route destination=10.99.0.0/16,gateway=10.7.0.9 sub
address scope create --ip-version 4 scope
address scope list
address scope set --name scope2 scope
address scope show scope2
pool= subnet pool create --pool-prefix 10.64.0.0/16 --default-prefix-length 26 --address-scope scope2 pool
subnet pool list --long
subnet pool set --description d --tag blue pool
subnet pool show pool
subnet pool unset --tag blue pool
pooled= network create pooled
frompool= subnet create --network pooled --subnet-pool pool frompool
subnet delete frompool
network delete pooled
onboarded= network create onboarded
subnet create --network onboarded --subnet-range 10.65.0.0/24 onboarded-sub
network onboard subnet onboarded pool
added= network create added
subnet create --network added --subnet-range 10.66.0.0/24 added-sub
subnet pool add network added pool
subnet delete added-sub
network delete added
subnet delete onboarded-sub
network delete onboarded
subnet pool delete pool
address scope delete scope2
ip availability list
ip availability show net
# Ports
group= security group create --stateful group
security group list
security group set --description d --tag t group
security group unset --tag t group
security group show group
rule= security group rule create --protocol tcp --dst-port 80:90 --remote-ip 0.0.0.0/0 group
security group rule list group
security group rule show {rule}
security group rule delete {rule}
agroup= address group create --address 10.1.0.0/24 agroup
address group list
address group set --address 10.2.0.0/24 agroup
address group unset --address 10.2.0.0/24 agroup
address group show agroup
arule= security group rule create --protocol udp --remote-address-group agroup group
security group rule delete {arule}
address group delete agroup
drule= default security group rule create --protocol tcp --dst-port 22 --for-default-sg
default security group rule list
default security group rule show {drule}
default security group rule delete {drule}
port= port create --network net --fixed-ip subnet=sub,ip-address=10.7.0.77 --security-group group port
other= port create --network net --fixed-ip subnet=sub,ip-address=10.7.0.78 --mac-address fa:16:3e:00:00:77 --disable-port-security --no-security-group other
port list --network net --long
port set --description d --allowed-address ip-address=10.7.0.200,mac-address=fa:16:3e:00:00:78 --tag p port
port unset --allowed-address ip-address=10.7.0.200,mac-address=fa:16:3e:00:00:78 --tag p port
port show port
# Routers and floating IPs
router= router create router
router list --long
router set --description d router
router show router
router add subnet router sub
router remove subnet router sub
router add subnet router sub
rport= port create --network net --fixed-ip subnet=sub6 --disable-port-security --no-security-group rport
router add port router rport
router remove port router rport
scope6= address scope create --ip-version 6 --share scope6
pool6= subnet pool create --pool-prefix fd80::/48 --default-prefix-length 64 --address-scope scope6 --share pool6
out6= subnet create --network ext --subnet-pool pool6 --ip-version 6 out6
router add gateway router ext
router add route --route destination=10.50.0.0/16,gateway=10.7.0.9 router
router remove route --route destination=10.50.0.0/16,gateway=10.7.0.9 router
router set --route destination=10.51.0.0/16,gateway=10.7.0.9 router
router unset --route destination=10.51.0.0/16,gateway=10.7.0.9 router
fip= floating ip create --description d ext
floating ip list --long
floating ip set --port port {fip}
floating ip show {fip}
floating ip unset --port {fip}
forward= floating ip port forwarding create --internal-ip-address 10.7.0.77 --port port --internal-protocol-port 80 --external-protocol-port 8080 --protocol tcp {fip}
floating ip port forwarding list {fip}
floating ip port forwarding set --external-protocol-port 8081 {fip} {forward}
floating ip port forwarding show {fip} {forward}
floating ip port forwarding delete {fip} {forward}
floating ip delete {fip}
net6= network create net6
in6= subnet create --network net6 --subnet-pool pool6 --ip-version 6 in6
router add subnet router in6
router set --enable-ndp-proxy router
port6= port create --network net6 --fixed-ip subnet=in6 port6
ndp= router ndp proxy create --name ndp --port port6 router
router ndp proxy list
router ndp proxy set --description d ndp
router ndp proxy show ndp
router ndp proxy delete ndp
router set --disable-ndp-proxy router
port delete port6
router remove subnet router in6
subnet delete in6
network delete net6
helper= network l3 conntrack helper create --helper tftp --protocol udp --port 69 router
network l3 conntrack helper list router
network l3 conntrack helper set --port 70 router {helper}
network l3 conntrack helper show router {helper}
network l3 conntrack helper delete router {helper}
# What else goes with them
trunk= network trunk create --parent-port port trunk
network trunk list --long
network trunk set --description d trunk
network trunk subport add --segmentation-type vlan --segmentation-id 7 trunk other
network trunk subport list trunk
network subport list --trunk trunk
network trunk subport remove trunk other
network trunk show trunk
network trunk set --subport port=other,segmentation-type=vlan,segmentation-id=8 trunk
network trunk unset --subport other trunk
network trunk delete trunk
local= local ip create --network net --local-port other --name local
local ip list
local ip set --description d local
local ip show local
local ip association create local port
local ip association list local
local ip association delete local {port}
local ip delete local
segment= network segment create --network net --network-type vlan --physical-network dc --segment 77 segment
network segment list --network net
network segment set --description d segment
network segment show segment
network segment delete segment
range= network segment range create --network-type vlan --physical-network dc2 --minimum 100 --maximum 200 --shared range
network segment range list
network segment range set --minimum 100 --maximum 300 range
network segment range show range
network segment range delete range
qos= network qos policy create --description d qos
network qos policy list
network qos policy set --description e qos
network qos policy show qos
qrule= network qos rule create --type bandwidth-limit --max-kbps 1000 --max-burst-kbits 100 --egress qos
network qos rule list qos
network qos rule set --max-kbps 2000 qos {qrule}
network qos rule show qos {qrule}
network qos rule type list
network qos rule type show bandwidth_limit
port set --qos-policy qos port
port unset --qos-policy port
network qos rule delete qos {qrule}
rbac= network rbac create --type qos_policy --action access_as_shared --target-all-projects qos
network rbac list
network rbac show {rbac}
network rbac delete {rbac}
network qos policy delete qos
meter= network meter create meter
network meter list
network meter show meter
mrule= network meter rule create --ingress --remote-ip-prefix 10.0.0.0/8 meter
network meter rule list
network meter rule show {mrule}
network meter rule delete {mrule}
network meter delete meter
flavor= network flavor create --service-type L3_ROUTER_NAT flavor
network flavor list
network flavor set --description d flavor
network flavor show flavor
profile= network flavor profile create --description d --metainfo m --driver ""
network flavor profile list
network flavor profile set --description e {profile}
network flavor profile show {profile}
network flavor add profile flavor {profile}
network flavor remove profile flavor {profile}
network flavor profile delete {profile}
network flavor delete flavor
network service provider list
agent= network agent list
network agent show {agent}
network agent set --description d {agent}
statefulness= security group default statefulness create --stateless
security group default statefulness list
security group default statefulness set --stateful {statefulness}
security group default statefulness show {statefulness}
security group default statefulness delete {statefulness}
extension list --network
extension show security-group
availability zone list --network
# And away again
router remove gateway router ext
router set --external-gateway ext router
router unset --external-gateway router
router remove subnet router sub
router delete router
port delete port other
security group delete group
subnet delete sub sub6 extsub
network delete net ext
"""

# Those that are not part of the story, each with the reason.
NOTHING_TO_SCHEDULE = "every host serves all that its ports need: there is no agent to give a network or router to"
NOT_DONE: dict[str, str] = {
    "network agent add network": NOTHING_TO_SCHEDULE,
    "network agent add router": NOTHING_TO_SCHEDULE,
    "network agent remove network": NOTHING_TO_SCHEDULE,
    "network agent remove router": NOTHING_TO_SCHEDULE,
    "network agent router set": NOTHING_TO_SCHEDULE,
    "network rbac set": "its only option looks a project up in Keystone; the request itself is tried by tests/api/test_sdk_rbac.py",
    "network auto allocated topology create": "it names the project of a token, and `auth none` has none; see tests/unit/control/test_topology.py",
    "network auto allocated topology delete": "as above",
    "network agent delete": "a host that is alive cannot be deleted; `crossway host` forgets one that is not",
}
