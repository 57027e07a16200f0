"""All papers whose tables can be made again, by name."""

from pipelines.reproduce.accel import ACCEL
from pipelines.reproduce.fastgan import FASTGAN
from pipelines.reproduce.gca import GCA
from pipelines.reproduce.giu import GIU
from pipelines.reproduce.lrm import LRM
from pipelines.reproduce.paper import Paper

PAPERS: dict[str, Paper] = {paper.name: paper for paper in (ACCEL, GIU, LRM, FASTGAN, GCA)}
