// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The data plane: three hooks, and the stages that they hand packets to.
//
//     from_workload ─ guard ─┬─ firewall(egress) ─┬─ firewall(ingress) ──> a port of this host
//                            ├─ answer            ├─ encap ──> VXLAN
//                            ├─ route ─┬──────────┴─ leave ──> the provider network
//                            │         ├─ split ──> in pieces to any of these
//                            │         └─ report
//                            ├─ respond ──> a client of a published port
//                            └─ flood
//     from_overlay ──────────┬─ firewall(ingress) ──> a port of this host
//     from_uplink  ──────────┼─ flood
//                            └─ publish ──> a port of this host
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "include/stage.h"
#include "stages/answer.h"
#include "stages/flood.h"
#include "stages/hold.h"
#include "stages/publish.h"
#include "stages/report.h"
#include "stages/respond.h"
#include "stages/route.h"
#include "stages/split.h"
#include "from_workload.bpf.c"
#include "from_overlay.bpf.c"
#include "from_uplink.bpf.c"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
