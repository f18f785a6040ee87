"""The journal: the one way into and out of the event logs.

Durable before visible: a worker is acknowledged and a follower sees an event only after COMMIT. `writer` commits what waits, over all
sessions in one statement; `feed` is the live end of one log in this process; `follow` replays and follows as one path; `notes` is what
is said between turns.
"""

from server.kernel.journal.feed import Events
from server.kernel.journal.follow import Closed, Frame, Idle, Synced
from server.kernel.journal.journal import Journal
from server.kernel.journal.log import SessionLog
from server.kernel.journal.notes import Notes

__all__ = ["Closed", "Events", "Frame", "Idle", "Journal", "Notes", "SessionLog", "Synced"]
