"""How fast the suite is: beside plain Avalanche, and beside what the hardware's matrix products allow.

All sides of a comparison are timed in turn, round after round, so that whatever else the machine does falls on all of
them; a ratio is taken within each round. Plain Avalanche trains in a process of its own, which waits when it is not
its turn, so that it has nothing of ours. A time is that of one optimiser step of one run, in seconds, what the strategy
does at an experience's end included in its share.
"""

from acn_cl.bench.plan import QUICK as QUICK
from acn_cl.bench.plan import Plan as Plan
from acn_cl.bench.report import Report as Report
from acn_cl.bench.report import markdown as markdown
from acn_cl.bench.run import bench as bench
