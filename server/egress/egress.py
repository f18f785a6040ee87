"""The way out of workers (see the port Egress), from settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from server.config import Settings
from server.kernel.egress import MAX_RULES, HostRules, parse_ceiling, parse_rules
from server.kernel.errors import EgressNotConfigured, HostNotAllowed, InvalidField
from server.kernel.ports.egress import Egress, Ledger
from server.kernel.ports.launcher import EgressDoor
from server.setting_forms import parts

if TYPE_CHECKING:
    from server.egress.connection import WayOut

_MIB = 1024 * 1024


class HttpEgress:
    """See Egress."""

    def __init__(self, ceiling: HostRules, way: WayOut | None, *, turn_bytes: int) -> None:
        """`way`: None where nobody gets out."""
        self._ceiling = ceiling
        self._way = way
        self._turn_bytes = turn_bytes

    def check(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """See Egress."""
        if len(hosts) > MAX_RULES:
            raise InvalidField("allowed_hosts", f"{len(hosts)} hosts, at most {MAX_RULES} are allowed")
        try:
            rules = parse_rules(hosts)
        except ValueError as error:
            raise InvalidField("allowed_hosts", str(error)) from None
        for rule in rules.rules:
            if not self._ceiling.covers(rule):
                raise HostNotAllowed(str(rule), str(self._ceiling))
        if rules and self._way is None:
            raise EgressNotConfigured
        return tuple(map(str, rules.rules))

    @asynccontextmanager
    async def open(self, door: EgressDoor, *, hosts: Sequence[str], passed: int, ledger: Ledger) -> AsyncIterator[None]:
        """See Egress."""
        from server.egress.connection import Allowance
        from server.egress.door import listening
        from server.egress.measured import Measured

        asked = parse_rules(hosts)
        # What let them out when the session was made may be gone. Without a door the agent's programs would wait for one.
        rules = asked.within(self._ceiling) if self._way else HostRules()
        refused = HostRules([rule for rule in asked.rules if rule not in rules.rules])
        allowance = Allowance(rules, refused, self._ceiling.naming, self._turn_bytes - passed)
        async with listening(door, self._way, allowance, Measured(ledger)):
            yield


@asynccontextmanager
async def open_egress(settings: Settings) -> AsyncIterator[Egress]:
    """From settings."""
    ceiling = parse_ceiling(settings.egress_hosts)
    turn_bytes = settings.egress_turn_mib * _MIB
    async with AsyncExitStack() as stack:
        way = None
        # Where nobody may get out, what lets them out need not be loaded.
        if ceiling and settings.egress_proxy:
            from gateway.addresses import parse_networks
            from server.egress.connection import WayOut
            from server.egress.names import Names
            from server.egress.proxy import Proxy

            names = Names(parts(settings.egress_dns))
            stack.push_async_callback(names.close)
            proxy = Proxy(settings.egress_proxy, settings.egress_proxy_credential.get_secret_value())
            way = WayOut(names, proxy, parse_networks(settings.egress_networks), parse_networks(settings.egress_denied_networks))
        yield HttpEgress(ceiling, way, turn_bytes=turn_bytes)
