"""Where a scenario asks its queries: a cluster in memory, or three processes over sealed TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from siguard.actors.cluster import GuardResult, open_cluster
from siguard.actors.timing import VirtualTime
from siguard.deploy.launch import Processes, open_processes
from siguard.deploy.loopback import make_loopback
from siguard.deploy.owner import connect_owner
from siguard.deploy.schema import LimitsSection
from siguard.deploy.user import connect
from siguard.errors import ProtocolError
from siguard.guard.config import GuardConfig
from siguard.scenario.experiment import Experiment
from siguard.scenario.load import Scenario
from siguard.scenario.progress import Progress, counted
from siguard.scenario.stopping import sigterm_is_ctrl_c

#: Guards some rows of the experiment, inference first where it has a model.
Ask = Callable[[slice, GuardConfig], Awaitable[GuardResult]]

_START = "starting the servers"
#: Seconds that three processes may take to start, on a machine with other work.
_START_SECONDS = 60.0
#: Seconds in which the end of a process is noticed after the links that it left.
_NOTICE_SECONDS = 1.0


def open_deployed(
    scenario: Scenario, experiment: Experiment, progress: Progress
) -> AbstractAsyncContextManager[Ask]:
    """The deployment that the scenario wants; leaving the block ends every party of it."""
    if scenario.transport.kind == "tcp":
        return _over_tcp(scenario, experiment, progress)
    return _in_memory(scenario, experiment)


@asynccontextmanager
async def _in_memory(scenario: Scenario, experiment: Experiment) -> AsyncIterator[Ask]:
    network = scenario.network
    time = VirtualTime(network.costs, cores=network.cores) if network.clock == "virtual" else None
    async with open_cluster(
        seed=scenario.seed, debug_open=True, network=network.as_profile(), time=time
    ) as cluster:

        async def ask(rows: slice, config: GuardConfig) -> GuardResult:
            defender, model = experiment.defender, experiment.model
            if scenario.prepare:
                await cluster.prepare(defender, config, len(experiment.logits[rows]), model=model)
            if experiment.features is not None and model is not None:
                return await cluster.query(experiment.features[rows], model, defender, config)
            return await cluster.guard(experiment.logits[rows], defender, config)

        yield ask


@asynccontextmanager
async def _over_tcp(scenario: Scenario, experiment: Experiment, progress: Progress) -> AsyncIterator[Ask]:
    features, model = experiment.features, experiment.model
    assert features is not None  # noqa: S101 - load_scenario refuses data without a model
    assert model is not None  # noqa: S101
    loopback = (await make_loopback()).changed(
        network=scenario.network.shape(), limits=LimitsSection(connect=_START_SECONDS)
    )
    deployment, identities = loopback.deployment, loopback.identities
    with sigterm_is_ctrl_c():
        async with open_processes(loopback) as processes, _watched(processes):
            with counted(progress, _START, 1):
                async with connect_owner(deployment, identities["owner"]) as owner:
                    await owner.share(model, experiment.defender, list(scenario.policies.values()))
            async with connect(deployment, identities["user"]) as user:

                async def ask(rows: slice, config: GuardConfig) -> GuardResult:
                    if scenario.prepare:
                        await user.prepare(len(features[rows]), config)
                    return await user.query(features[rows], config)

                yield ask


@asynccontextmanager
async def _watched(processes: Processes) -> AsyncIterator[None]:
    """The block ends with an error when a server does; that error, and not those of the links that it left."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(processes.watch)
        try:
            yield
        except (ProtocolError, ExceptionGroup):
            await trio.sleep(_NOTICE_SECONDS)  # the watcher cancels it
            raise
        nursery.cancel_scope.cancel()
