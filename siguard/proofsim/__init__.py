"""The security claim as something that runs; `docs/security.md` says what exactly is claimed.

view, recorder, replay, stage      what a corrupted set sees, and its own code played against it
simulation, simulator, bound       simulated views, gate by gate, for own coins and for given ones
ideal, queries, steering           functionalities as code, F(inputs; coins), and real runs with chosen coins
enumeration, worlds, exact         all cases of an instance counted; instances*, functionalities, wide
gate_*, schedules                  gates at 64 bits, real against simulated
shape_*, leaky                     frames without their bytes, and the loop that must not be
membership, compared, rowwise      members against non-members; statistics, distinguisher
faults, attacked, capture, watched the active network, and what is logged
rungs/, controls/                  the ladder, and the leaks that it must notice
claims, prove, worker              the run; table, page, chart, exhibits show it
"""
