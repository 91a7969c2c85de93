"""The battery: each thing that a port can do, over all pairs of container, virtual machine and bare-metal server.

A port is a port: every case has to end the same for every pair, on one host
and across hosts. Operators run it (`make battery`), so it is a part of the
lab; the tests run a handful of its cases.

    probe      the same small program in every body, which sends and hears
    bodies     a container, a guest, a server: each with two network cards
    scene      the lab with nine bodies, their networks and routers
    pair       what a case is given: who sends, who is to hear, and words to try it with
    registry   which cases there are
    cases/     the cases, an area a file
    run        all cases over all pairs, and what came of it
    page       the table, for people and for the docs
"""
