"""Where runs are trained: in this process, in several on this machine, or on a Ray cluster.

All of them do the same work (:mod:`acn_cl.executors.perform`) on the same tasks (:mod:`acn_cl.executors.task`), so that
a run's numbers do not depend on which of them it was.
"""
