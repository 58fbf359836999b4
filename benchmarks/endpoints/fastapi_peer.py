"""The peer of `benchmarks.serving`, as one writes it: FastAPI, sentence-transformers and a flat FAISS index.

python -m benchmarks.endpoints.fastapi_peer MODEL VECTORS.npy PASSAGES.arrow PORT
"""

import sys

import faiss
import numpy as np
import pyarrow as pa
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Question(BaseModel):
    """A query."""

    query: str
    limit: int = 10


class Hit(BaseModel):
    """A passage found."""

    id: str
    score: float
    title: str
    text: str


def main() -> None:
    """Serve until killed."""
    model_path, vectors_path, passages_path, port = sys.argv[1:]
    model = SentenceTransformer(model_path, device="cpu")
    vectors = np.load(vectors_path)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    passages = pa.ipc.open_file(pa.memory_map(passages_path)).read_all().to_pylist()
    app = FastAPI()

    @app.post("/v1/search")
    def search(question: Question) -> list[Hit]:
        vector = model.encode([question.query], normalize_embeddings=True, show_progress_bar=False)
        scores, rows = index.search(vector, question.limit)
        return [
            Hit(score=score, **{name: passages[row][name] for name in ("id", "title", "text")})
            for score, row in zip(scores[0].tolist(), rows[0].tolist(), strict=True)
        ]

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
