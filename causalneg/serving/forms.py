"""From what was is found and kept to what is answered."""

import json
from typing import Any

from causalneg.indexing.manifest import IndexManifest
from causalneg.indexing.view import Hit, View
from causalneg.serving.schema import IndexVersion, Payload, SearchHit


def search_hit(view: View, hit: Hit, with_payload: bool) -> SearchHit:
    """Return a hit of a view, with its passage where that is wanted."""
    if not with_payload:
        return SearchHit(id=hit.id, score=hit.score)
    passage = view.payload(hit)
    payload = Payload(title=passage.title, text=passage.text, metadata=metadata_of(passage.metadata))
    return SearchHit(id=hit.id, score=hit.score, payload=payload)


def metadata_of(text: str) -> dict[str, Any]:
    """Return metadata as it was given."""
    return dict(json.loads(text)) if text else {}


def described(manifest: IndexManifest) -> IndexVersion:
    """Return what is said of a version."""
    return IndexVersion(
        version=manifest.version,
        kind=manifest.kind,
        rows=manifest.rows,
        dimension=manifest.dimension,
        shards=len(manifest.shards),
        megabytes=sum(f.bytes for f in manifest.files.values()) / 1e6,
        model=manifest.model.name,
        model_fingerprint=manifest.model.fingerprint,
        recall=manifest.recall,
        lexical=manifest.lexical,
        change=manifest.change,
        created=manifest.created,
    )
