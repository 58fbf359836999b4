"""The kinds of FAISS index: what each is made of, what it costs, and how its search is set. Imports little.

Everything about a kind stands in `KINDS`; the rest of the package asks there. The metric is the inner product.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from causalneg.errors import UserError

if TYPE_CHECKING:
    import faiss

Kind = Literal["flat", "sq8", "hnsw", "ivf_sq8", "ivf_pq", "ivf_rabitq"]
Parameters = dict[str, int]  # of a search, as faiss names them

_LINKS = 32  # neighbours of a row in the HNSW graph; twice as many in its lowest layer
_ROWS_PER_LIST = 39  # k-means wants that many training vectors for a centroid, and faiss says so where it has fewer
_MOST_LISTS = 65_536
_CODEBOOK = 256  # centroids of a part of a product quantizer, which cannot be trained with fewer vectors
_CODEBOOK_ROUNDS = 10  # of k-means for each part; more find hardly better ones
_PARTS = (4, 6, 8, 5, 3, 2)  # dimensions that a code of a product quantizer stands for, the preferred first
_PROBES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
_FACTOR = 16  # candidates of the one-bit codes for each hit, which the 8-bit codes put in order; 8 lose 1 in 100 hits
_FEW = 20_000  # rows that are looked at one by one in less time than a search takes that has to skip the others
_LINK_BYTES = 8 * _LINKS + 24  # of a row of an HNSW graph: its lowest layer, where it stands, and a few links above
_NUMBER_BYTES = 8  # of a row in an inverted list
_NORM_BYTES = 8  # that RaBitQ keeps of a row besides its bits
_LEAST_TRAINED = 20_000  # vectors
_TRAINED_PER_LIST = 40


def lists(rows: int) -> int:
    """Return the number of inverted lists: about 4·sqrt(rows), a power of two, with enough rows to train each."""
    trainable = max(1, rows // _ROWS_PER_LIST)
    return min(2 ** round(math.log2(4 * math.sqrt(rows))), 2 ** int(math.log2(trainable)), _MOST_LISTS)


def _code_bytes(dimension: int) -> int:
    """Return the bytes of a row under the product quantizer, one for each part."""
    return dimension // next((part for part in _PARTS if dimension % part == 0), 1)


def _probes(rows: int) -> list[Parameters]:
    most = lists(rows)
    return [{"nprobe": n} for n in _PROBES if n < most] + [{"nprobe": most}]


@dataclass(frozen=True)
class KindSpec:
    """A kind of index.

    Attributes:
        factory: from rows and dimension to what `faiss.index_factory` takes.
        row_bytes: from the dimension to the bytes of a row, with its links or its number.
        ladder: from rows to the settings of the search, the cheapest first.
        inverted: whether the rows lie in inverted lists, whose centroids are trained and kept besides.
        least_rows: rows without which it cannot be trained.
        most_rows: rows beyond which `auto` leaves it out, for building it takes too long.
        last_resort: whether `auto` tries it only where no other finds enough: it finds less, and takes long to train.
        gpu: whether FAISS trains and fills it on a GPU.
    """

    factory: Callable[[int, int], str]
    row_bytes: Callable[[int], int]
    ladder: Callable[[int], list[Parameters]] = lambda rows: [{}]
    inverted: bool = False
    least_rows: int = 1
    most_rows: int | None = None
    last_resort: bool = False
    gpu: bool = False


KINDS: dict[Kind, KindSpec] = {
    "flat": KindSpec(
        factory=lambda rows, dimension: "Flat",
        row_bytes=lambda dimension: 4 * dimension,
    ),
    "sq8": KindSpec(
        factory=lambda rows, dimension: "SQ8",
        row_bytes=lambda dimension: dimension,
    ),
    "hnsw": KindSpec(
        factory=lambda rows, dimension: f"HNSW{_LINKS},SQ8",
        row_bytes=lambda dimension: dimension + _LINK_BYTES,
        ladder=lambda rows: [{"efSearch": n} for n in _EFFORTS],
        most_rows=5_000_000,  # the million takes 80 s on 2 cores
    ),
    "ivf_sq8": KindSpec(
        factory=lambda rows, dimension: f"IVF{lists(rows)},SQ8",
        row_bytes=lambda dimension: dimension + _NUMBER_BYTES,
        ladder=_probes,
        inverted=True,
        gpu=True,
    ),
    "ivf_rabitq": KindSpec(
        factory=lambda rows, dimension: f"IVF{lists(rows)},RaBitQ,Refine(SQ8)",
        row_bytes=lambda dimension: dimension + math.ceil(dimension / 8) + _NORM_BYTES + _NUMBER_BYTES,
        ladder=lambda rows: [probes | {"k_factor": _FACTOR} for probes in _probes(rows)],
        inverted=True,
    ),
    "ivf_pq": KindSpec(
        factory=lambda rows, dimension: (
            f"IVF{lists(rows)},PQ{_code_bytes(dimension)}np"
        ),  # np: without an order of codes
        row_bytes=lambda dimension: _code_bytes(dimension) + _NUMBER_BYTES,
        ladder=_probes,
        inverted=True,
        least_rows=_CODEBOOK,
        last_resort=True,
        gpu=True,
    ),
}


def new_index(kind: Kind, rows: int, dimension: int) -> "faiss.Index":
    """Return an empty index, to be trained.

    Raises:
        UserError: there are too few rows for the kind.
    """
    import faiss

    spec = KINDS[kind]
    if rows < spec.least_rows:
        raise UserError(
            f"index.kind: {kind} is trained on at least {spec.least_rows} passages, and a shard has {rows}; "
            "take flat or auto."
        )
    index = faiss.index_factory(dimension, spec.factory(rows, dimension), faiss.METRIC_INNER_PRODUCT)
    if inverted := faiss.try_extract_index_ivf(index):
        inverted.cp.min_points_per_centroid = 1  # few rows are no cause for a warning: there is one list then
        if pq := getattr(faiss.downcast_index(inverted), "pq", None):
            pq.cp.min_points_per_centroid, pq.cp.niter = 1, _CODEBOOK_ROUNDS
    return index


def training_rows(rows: int) -> int:
    """Return how many vectors a kind is trained on at most, for `rows` in a shard."""
    return max(_LEAST_TRAINED, _TRAINED_PER_LIST * lists(rows))


def estimated_bytes(kind: Kind, shards: Sequence[int], dimension: int) -> int:
    """Return about how much memory the vectors of these shards take, which is the size of their files as well."""
    spec = KINDS[kind]
    centroids = sum(lists(rows) * 4 * dimension for rows in shards) if spec.inverted else 0
    return sum(shards) * spec.row_bytes(dimension) + centroids


def parts(index: "faiss.Index") -> "list[faiss.Index]":
    """Return a FAISS index and those inside it that hold the same rows."""
    import faiss

    index = faiss.downcast_index(index)
    inner = [getattr(index, name) for name in ("storage", "base_index", "refine_index") if hasattr(index, name)]
    return [index, *(part for found in inner for part in parts(found))]


def structure(index: "faiss.Index") -> list[tuple[str, int, int, int]]:
    """Return class, dimension, metric and bytes of a row's code of a FAISS index and of those inside it."""
    import faiss

    quantizers = [faiss.downcast_index(part.quantizer) for part in parts(index) if hasattr(part, "quantizer")]
    return [
        # An IndexFlat of this metric is read back as an IndexFlatIP.
        (type(part).__name__.removesuffix("IP"), part.d, part.metric_type, getattr(part, "code_size", 0))
        for part in [*parts(index), *quantizers]
    ]


def search_parameters(
    kind: Kind, parameters: Parameters, selector: "faiss.IDSelector | None" = None
) -> "faiss.SearchParameters":
    """Return the settings of a search as FAISS takes them.

    Args:
        kind: of the index.
        parameters: a rung of the kind's ladder.
        selector: the rows that may be found; all when unset.
    """
    import faiss

    if kind == "hnsw":
        return faiss.SearchParametersHNSW(sel=selector, **parameters)
    if kind == "ivf_rabitq":
        probes = faiss.SearchParametersIVF(sel=selector, nprobe=parameters["nprobe"])
        return faiss.IndexRefineSearchParameters(k_factor=parameters["k_factor"], base_index_params=probes)
    if KINDS[kind].inverted:
        return faiss.SearchParametersIVF(sel=selector, **parameters)
    return faiss.SearchParameters(sel=selector)


def exhaustive(index: "faiss.Index", kind: Kind) -> "tuple[faiss.Index, Callable[[faiss.IDSelector | None], Any]]":
    """Return what looks at every row of an index, and how its search is set for the rows that may be found."""
    import faiss

    if kind == "hnsw":
        return faiss.downcast_index(index.storage), lambda selector: faiss.SearchParameters(sel=selector)
    if kind == "ivf_rabitq":
        return faiss.downcast_index(index.refine_index), lambda selector: faiss.SearchParameters(sel=selector)
    if KINDS[kind].inverted:
        return index, lambda selector: faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist)
    return index, lambda selector: faiss.SearchParameters(sel=selector)


def widened(kind: Kind, parameters: Parameters, allowed: int, rows: int) -> Parameters | None:
    """Return how to search where only some rows may be found, so that as many of them are found as of all rows.

    Returns:
        The settings; None where looking at every allowed row takes less.
    """
    ladder = KINDS[kind].ladder(rows)
    if allowed <= _FEW or not parameters:
        return None
    effort, widest = next(iter(parameters)), ladder[-1]
    share = allowed / rows
    # The allowed rows may lie together, away from the query: measured with those nearest to another passage.
    wanted = math.ceil(parameters[effort] * (1 / share if kind == "hnsw" else math.sqrt(1 / share)))
    return parameters | {effort: wanted} if wanted < widest[effort] else None
