"""Scenarios: experiments described by a TOML file, from data to attacks and a report; or proofs.

schema.py      what a scenario file may hold
load.py        read, override, validate (siguard/explain.py words the errors: file, key, found, allowed)
proof.py       `load_any`: an experiment, or with ``[prove]`` the scope of a proof
overrides.py   ``--set guard.inner=5``: dotted keys over a scenario
experiment.py  what is guarded and attacked: data, target, membership classifier, shadow rows
deployed.py    where queries are asked: a cluster in memory, or three processes over sealed TCP
runner.py      `run_scenario`: all of it, step by step
stopping.py    how a run ends early; progress.py, threads.py: how it says where it is, and keeps to one thread
figures.py     from released confidences to figures
report.py      `Report`: what was measured, as JSON and as tables

Needs the extra ``eval`` (scikit-learn) to run, not to read a scenario.
"""
