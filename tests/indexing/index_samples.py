"""The corpus that the tests of the index share."""

from causalneg.indexing.store import IndexModel
from causalneg.records import Passage

PASSAGES = [
    Passage(id="rome", title="Rome", text="Rome is the capital of Italy."),
    Passage(id="paris", title="Paris", text="Paris is the capital of France."),
    Passage(id="moon", text="The Moon orbits the Earth in about 27 days."),
    Passage(id="bread", text='Bread is baked from flour, water & yeast — "pane" in Italian.'),
    Passage(id="mars", title="Mars", text="Mars is the fourth planet from the Sun."),
]
MODEL = IndexModel(name="test", fingerprint="0123456789abcdef")
