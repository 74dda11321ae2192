"""Kill your own training anywhere, and see that it ends the same. Needs no pytest.

In: a function that trains with a :class:`~spotproof.checkpoint.Checkpointer`, or the command of a whole script. Out: a
report, or an error that names the kill and the first difference. Who may import it: tests, yours and ours. Loads no
torch itself.
"""

from spotproof.testing.calls import CallKill, CallKills, kill_at_every_call
from spotproof.testing.script import Kill, ScriptKills, kill_script

__all__ = ["CallKill", "CallKills", "Kill", "ScriptKills", "kill_at_every_call", "kill_script"]
