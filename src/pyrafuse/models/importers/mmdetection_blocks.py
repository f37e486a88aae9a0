"""mmdetection's names of the parameters of blocks and of the small necks.

Learnt from published files' keys and shapes. our key -> theirs, each naming for one of our modules
"""

from pyrafuse.models.importers.renaming import by_patterns

name_sac = by_patterns([(r"^offset_near\.", "offset_s."), (r"^offset_far\.", "offset_l.")])
"""Of a `SwitchableAtrousConv`."""
