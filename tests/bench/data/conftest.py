"""Tests marked `network` read public data: where it is neither here nor to be fetched, they are skipped and say so."""

import pytest

from bench.assets.cache import asset_folder
from bench.assets.catalogue import AssetError


@pytest.fixture(autouse=True)
def public_data(request):
    if request.node.get_closest_marker("network"):
        for name in ("cifar10", "emoji"):
            try:
                asset_folder(name)
            except AssetError as error:
                pytest.skip(f"network: {str(error).splitlines()[0]}")
