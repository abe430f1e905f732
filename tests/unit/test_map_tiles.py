"""What lies behind the map of posts: a folder of tiles, of which nobody gets anything else, and licences that are told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import assets as registry
from agent.errors import ConfigError
from agent.station.people.roles import Role
from agent.station.web.assets import FETCHED, NOTES
from agent.station.web.tiles import PNG, TILE_BYTES_MAX, Tiles
from tests.fakes.database import Database
from tests.fakes.desk import Visitor, Ward

STREET = PNG + b" a street"
SECRET = PNG + b" a secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Zooms 14 and 15, one tile each; beside it something that nobody must get."""
    made = tmp_path / "tiles"
    for zoom, x, y in ((14, 13009, 7216), (15, 26018, 14432)):
        (made / str(zoom) / str(x)).mkdir(parents=True)
        (made / str(zoom) / str(x) / f"{y}.png").write_bytes(STREET)
    (tmp_path / "secret.png").write_bytes(SECRET)
    return made


def test_a_tile_is_found_by_its_numbers_and_nothing_else_is(folder: Path, tmp_path: Path) -> None:
    tiles = Tiles(folder)
    assert (tiles.zoom_min, tiles.zoom_max) == (14, 15)
    assert tiles.read(14, 13009, 7216) == STREET
    beside = folder / "14" / "13009"
    (beside / "1.png").symlink_to(tmp_path / "secret.png")
    (beside / "2.png").write_bytes(b"<svg onload=alert(1)>")
    (beside / "3.png").write_bytes(PNG + bytes(TILE_BYTES_MAX))
    (beside / "4.png").mkdir()
    os.mkfifo(beside / "5.png")
    (beside / "6.png").symlink_to(beside / "6.png")
    (folder / "14" / "9").symlink_to(tmp_path)
    (beside / "7.png").symlink_to(beside / "7216.png")
    assert tiles.read(14, 13009, 7) == STREET, "a link within the folder saves room"
    for at in [(14, 13009, y) for y in (1, 2, 3, 4, 5, 6, 8)] + [(14, 9, 1), (13, 0, 0), (14, 1 << 14, 0)]:
        assert tiles.read(*at) is None, at
    for at in ((-1, 0, 0), (20, 0, 0), (14, -1, 0), (14, 0, -1), (14, 0, 1 << 14)):
        assert tiles.read(*at) is None, at


def test_a_folder_without_tiles_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "latest").mkdir()
    with pytest.raises(ConfigError, match="has no folders 0 to 19"):
        Tiles(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"web\.tiles: .*none"):
        Tiles(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"web\.tiles"):
        Tiles(tmp_path / "file")


@pytest.fixture
def desk(tmp_path: Path, folder: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database, tiles=str(folder), tiles_attribution='<i>"us"</i>')
    yield made
    made.close()


def logged_in(desk: Ward, role: Role, *posts: str) -> Visitor:
    desk.person(role.value, role, *posts)
    return desk.visitor(role.value)


def test_the_desk_serves_tiles_to_whoever_has_logged_in_and_no_path_leads_out(desk: Ward) -> None:
    nobody, technician = desk.visitor(""), logged_in(desk, Role.TECHNICIAN)
    tile = "/map/tiles/14/13009/7216.png"
    assert nobody.get(tile).status_code in (303, 401)
    assert logged_in(desk, Role.HOUSEHOLD, "gate-1").get(tile).status_code == 403
    answer = technician.get(tile)
    assert answer.status_code == 200 and answer.content == STREET and answer.headers["content-type"] == "image/png"
    for path in (
        "/map/tiles/14/13009/1.png",
        "/map/tiles/14/../secret.png",
        "/map/tiles/14/13009/..%2f..%2f..%2fsecret.png",
        "/map/tiles/%2e%2e/13009/7216.png",
        "/map/tiles/14/13009/7216.png%00",
        "/map/tiles/14/13009/7216.svg",
        "/map/tiles/+14/13009/7216.png",
        "/map/tiles/14/99999999/7216.png",
    ):
        assert technician.get(path).status_code == 404, path
    technician.get("/map")
    assert 'data-least="14" data-most="15"' in technician.page
    assert 'data-attribution="&lt;i&gt;&#34;us&#34;&lt;/i&gt;"' in technician.page


def test_a_desk_without_tiles_has_no_address_for_them(tmp_path: Path, database: Database) -> None:
    made = Ward(tmp_path, database)
    visitor = logged_in(made, Role.OPERATOR)
    assert visitor.get("/map/tiles/14/13009/7216.png").status_code == 404
    visitor.get("/map")
    assert "data-tiles" not in visitor.page
    made.close()


def test_what_a_browser_gets_of_others_is_told_with_its_licence(
    desk: Ward, assets: registry.Assets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that is fetched for browsers has a note, and the licence lies in the cache beside it."""
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))
    noted = {script.package for script, _, _, _, _ in NOTES}
    assert {asset.package for asset, _ in FETCHED.values()} == noted == {one.package for one in registry.DESK}
    for script, licence, _, _, _ in NOTES:
        assert licence.pin == script.pin and licence in registry.DESK
        assets.get(script)
        assets.get(licence)
    answer = desk.visitor("").get("/assets/licences.txt")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    for part in ("hls.js 1.6.16, Apache-2.0", "Dailymotion", "Leaflet 1.9.4, BSD-2-Clause", "Volodymyr Agafonkin"):
        assert part in answer.text
    assert "not fetched" not in answer.text
    served = desk.visitor("").get("/assets/leaflet.js")
    assert served.status_code == 200 and served.content == assets.get(registry.LEAFLET).read_bytes()


def test_a_station_without_the_map_says_how_to_get_it(
    desk: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDPOST_CACHE", str(tmp_path / "nothing"))
    visitor = logged_in(desk, Role.OPERATOR)
    assert visitor.get("/assets/leaflet.js").status_code == 404
    visitor.get("/map")
    assert "agent.assets --desk" in visitor.page and "leaflet.js" not in visitor.page
    assert (
        "Leaflet 1.9.4, BSD-2-Clause: draws the map of posts; not fetched" in visitor.get("/assets/licences.txt").text
    )
