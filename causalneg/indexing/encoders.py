"""The encoder that made an index version; a trained one is kept beside the index, so that old versions can answer."""

from pathlib import Path

from causalneg.errors import UserError
from causalneg.files import link_files, whole_folder
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.manifest import IndexManifest
from causalneg.models import ResolvedModel, resolve

TRAINED = "trained"  # how an index names the encoder that was trained in its workspace


def keep_model(model: ResolvedModel, target: Path) -> None:
    """Keep a trained model beside the index: training anew replaces it, and old versions are to answer still."""
    if target.exists():
        return
    with whole_folder(target) as fresh:
        link_files(model.path, fresh)


def find_model(catalog: Catalog, manifest: IndexManifest) -> ResolvedModel:
    """Return the model that made an index version: the copy beside the index if there is one, else by its name.

    Raises:
        UserError: it is not there, or another model has taken its place.
    """
    kept, trained = catalog.model_folder(manifest.model.fingerprint), catalog.folder.parent / "model"
    name = str(trained) if manifest.model.name == TRAINED else manifest.model.name
    found = resolve(str(kept) if kept.is_dir() else name)
    if found.fingerprint != manifest.model.fingerprint:
        raise UserError(
            f"Index version {manifest.version} was encoded with {manifest.model.name} ({manifest.model.fingerprint}), "
            f"which is {found.fingerprint} now; what was built with the model of then cannot be searched with it, so "
            "run `causalneg index` again."
        )
    return ResolvedModel(manifest.model.name, found.path, found.fingerprint)
