"""The supervisor owns turns: it drives each from its durable state to its terminal event, whoever watches or not.

`life` tells the story of a turn; `prepare`, `work` and `publish` are its three parts; `supervisor` owns the tasks, leases and recovery.
"""

from server.kernel.supervisor.drive import Drive, Limits, Ports
from server.kernel.supervisor.supervisor import Supervisor
from server.kernel.supervisor.treasury import Treasury

__all__ = ["Drive", "Limits", "Ports", "Supervisor", "Treasury"]
