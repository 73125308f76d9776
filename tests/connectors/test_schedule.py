"""Times of looks and of files that are awaited; how a source stands after what happened to it."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk.retry import Policy, Trouble
from connectors.sdk.schedule import WEEKDAYS, Schedule, next_look, overdue_since, spread_s
from connectors.sdk.wire import FileWish, SourceWish
from connectors.transports.ftp import FtpPlace
from connectors.transports.places import FolderPlace
from connectors.transports.pull import PullPlace
from connectors.transports.sftp import SftpPlace
from connectors.work.address import describe, hide
from connectors.work.lane import Lane
from connectors.work.settings import Misconfigured, claimed, read_sources
from connectors.work.standing import Standing, ended, read_standing, rest_s, write_standing

KYIV = "Europe/Kyiv"
ZONES = ["UTC", KYIV, "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu"]


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_looks_follow_the_clocks_of_the_place():
    twice = Schedule(at=("12:30", "06:00"), zone=KYIV)
    assert next_look(twice, None) is None
    assert next_look(twice, at("2026-11-20T04:00")) == at("2026-11-20T10:30")
    assert next_look(twice, at("2026-11-20T10:30")) == at("2026-11-21T04:00")
    # Summer time begins on 29 March: 06:00 there is three hours before noon here, not two.
    assert next_look(twice, at("2026-03-28T23:00")) == at("2026-03-29T03:00")
    # 03:30 is left out that night; the look is not.
    night = Schedule(at=("03:30",), zone=KYIV)
    assert next_look(night, at("2026-03-28T12:00")) == at("2026-03-29T01:30")
    # In October 03:30 comes twice; one look is enough.
    first = next_look(night, at("2026-10-24T12:00"))
    assert (first, next_look(night, first)) == (at("2026-10-25T00:30"), at("2026-10-26T01:30"))
    week = Schedule(at=("06:00",), weekdays=("mon",), zone=KYIV)
    assert next_look(week, at("2026-11-23T04:00")) == at("2026-11-30T04:00")
    often = Schedule(every_s=600, weekdays=("mon", "fri"), zone=KYIV)
    assert next_look(often, at("2026-11-20T12:00")) == at("2026-11-20T12:10")
    assert next_look(often, at("2026-11-20T21:55")) == at("2026-11-22T22:00")
    assert (spread_s(often), spread_s(twice), spread_s(Schedule(every_s=20))) == (30, 30, 2)
    for bad in ({"zone": "Mars"}, {"at": ["24:00"]}, {"weekdays": ["monday"]}, {"every_s": 0}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, Schedule)


@settings(max_examples=100, deadline=None)
@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.sampled_from(ZONES),
    st.lists(st.times().map(lambda t: t.strftime("%H:%M")), max_size=4, unique=True),
    st.sets(st.sampled_from(WEEKDAYS), max_size=7), st.integers(1, 200_000),
)  # fmt: skip
def test_a_next_look_is_later_on_a_day_that_is_named_and_none_is_left_out(
    naive, zone, times, days, every
):
    last = naive.replace(tzinfo=UTC)
    schedule = Schedule(
        at=tuple(times), weekdays=tuple(sorted(days)), zone=zone, every_s=float(every)
    )
    due = next_look(schedule, last)
    assert due > last
    local = due.astimezone(ZoneInfo(zone))
    if days:
        assert WEEKDAYS[local.weekday()] in days
    if times:
        assert due - last <= timedelta(days=8)
        before = next_look(schedule, due - timedelta(seconds=1))
        assert before == due
    else:
        assert due >= last + timedelta(seconds=every)


def test_a_file_is_awaited_on_its_days_until_it_comes():
    daily = Schedule(expected_by="10:00", zone=KYIV, weekdays=("mon", "tue", "wed", "thu", "fri"))
    old = at("2026-01-01T00:00")

    def since(now, last_file=None, known=old):
        return overdue_since(daily, at(now), last_file=last_file, known_since=known)

    friday, before = at("2026-11-20T08:00"), at("2026-11-19T09:00")
    assert since("2026-11-20T07:59", at("2026-11-19T05:00")) is None
    assert since("2026-11-20T08:00", before) == friday
    # Still on Sunday, and on Monday before ten; then Monday's own is missed.
    assert since("2026-11-22T12:00", before) == friday == since("2026-11-23T07:00", before)
    assert since("2026-11-23T08:30", before) == at("2026-11-23T08:00")
    # One that comes late has come; one of the very day before ten too.
    assert since("2026-11-20T12:00", at("2026-11-20T11:00")) is None
    assert since("2026-11-20T12:00", at("2026-11-19T22:30")) is None
    assert since("2026-11-20T12:00", None, at("2026-11-20T08:30")) is None
    assert since("2026-11-20T12:00", None, at("2026-11-20T07:30")) == friday
    assert overdue_since(Schedule(), friday, last_file=None, known_since=old) is None


def wish(**more):
    given = {"is_yours": True, "held_by": "", "is_paused": False, "look": 0, "resume": 0, **more}
    return SourceWish("bank", **given)


def test_transient_trouble_is_tried_later_and_later_permanent_trouble_stops(tmp_path):
    schedule, now, one = Schedule(every_s=60), at("2026-11-20T08:00"), Standing()
    cut, gone = Trouble("timeout", "x"), Trouble("sign-in-refused", "y", is_permanent=True)
    rests = []
    for _ in range(9):
        one.note_look(schedule, now, cut, spread=0.5)
        rests.append((one.next_look_at - now).total_seconds())
        assert rests[-1] >= 63 and not one.is_stopped
    assert 900 <= rests[-1] <= 1_800 and (one.failures, one.faults) == (9, {"timeout": 9})
    assert rest_s(1, after_s=5_000) == 5_000
    # Two looks a day: a failed one is made up for soon.
    twice, other = Schedule(at=("06:00", "18:00")), Standing()
    other.note_look(twice, now, cut, spread=0)
    assert other.next_look_at - now <= timedelta(minutes=1)
    one.note_look(schedule, now, None, spread=0)
    assert (one.failures, one.code, one.next_look_at - now) == (0, "", timedelta(minutes=1))
    other.is_unsettled = True
    other.note_look(twice, now, None, spread=0)
    assert other.next_look_at - now == timedelta(seconds=30)
    one.note_look(schedule, now, gone, spread=0)
    assert one.is_stopped
    (tmp_path / "books").mkdir()
    write_standing(tmp_path, "bank", one)
    again = read_standing(tmp_path, "bank")
    assert again == one and not again.take_wish(wish(resume=0), now)
    assert again.take_wish(wish(resume=3), now)
    assert (again.is_stopped, again.heard_resume, again.failures) == (False, 3, 0)
    again.note_look(schedule, now, None, spread=0)
    assert not again.take_wish(wish(resume=3), now) and again.take_wish(wish(look=1), now)


def test_files_are_told_until_they_are_heard_and_wishes_are_heard_once():
    one, now = Standing(), at("2026-11-20T08:00")
    one.note_file("good.csv", ended("good.csv", "given", now), size=7, known={})
    assert one.to_tell() == () and (one.files, one.bytes, one.last_file_at) == (1, 7, now)
    failed = ended("bad.csv", "failed", now, trouble=Trouble("file-too-large", "z" * 999))
    one.note_file("bad.csv", failed, size=0, known={"uid": "4"})
    assert one.to_tell() == (failed,) and len(failed.detail) == 300
    one.note_heard(one.to_tell())
    assert one.to_tell() == () and one.failed["bad.csv"].known == {"uid": "4"}
    asked = FileWish("bad.csv", "replay", 2)
    assert one.new_wishes(wish(files=(asked,))) == [asked]
    one.asked["bad.csv"] = 2
    assert one.new_wishes(wish(files=(asked,))) == []
    given_ = ended("bad.csv", "given", now, asked=2)
    one.note_file("bad.csv", given_, size=1, known={})
    assert one.to_tell() == (given_,) and not one.failed
    one.note_heard((given_,))
    assert not one.ended and not one.asked
    # By itself, after somebody has put a better one there.
    one.note_file("bad.csv", failed, size=0, known={})
    one.note_file("bad.csv", ended("bad.csv", "given", now), size=1, known={})
    assert [t.end for t in one.to_tell()] == ["given"]


def test_addresses_and_texts_tell_no_secret_and_nobodys_name():
    sftp = SftpPlace(host="sftp.bank.example", user="anna.k", fingerprints=("SHA256:x",),
                     folder="/home/anna.k/out", password_file="/etc/secret/pw")  # fmt: skip
    assert describe(sftp) == ("sftp", "sftp.bank.example:22/…/out")
    told = hide(sftp, "sftp.bank.example refuses anna.k; /etc/secret/pw, /home/anna.k/out")
    assert told == "sftp.bank.example refuses …; …, …"
    page = PullPlace(url="https://shop.example/feeds/9f3ad2/list.yml?token=abc")
    assert describe(page) == ("https", "shop.example")
    broken = msgspec.structs.replace(page, url="https://shop.example:x/9f3ad2")
    assert describe(broken) == ("https", "") and hide(broken, "a\0b\ud800") == "ab"
    assert "9f3ad2" not in hide(page, "404 at /feeds/9f3ad2/list.yml?token=abc")
    assert describe(FolderPlace(folder="/srv/anna/bank/")) == ("folder", "…/bank")
    home = FtpPlace(host="h", user="anna", folder="/anna", password_file="p")
    assert describe(home)[1].startswith("h") and "anna" not in describe(home)[1]


def test_who_hangs_hangs_alone_and_is_not_asked_twice():
    async def go():
        lane, free, late = Lane(), threading.Event(), []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await lane.run(free.wait, late=late.append)
        with pytest.raises(Trouble, match="still-hanging"):
            await lane.run(int)
        begun = time.monotonic()
        others = [Lane() for _ in range(40)]
        hung = [asyncio.create_task(o.run(free.wait)) for o in others]
        await asyncio.sleep(0)
        assert await Lane().run(int, "7") == 7 and time.monotonic() - begun < 1
        await lane.close(free.set)
        assert await asyncio.gather(*hung) == [True] * 40
        for _ in range(200):
            if late:
                break
            await asyncio.sleep(0.01)
        assert late == [True] and await lane.run(int, "8") == 8
        with pytest.raises(ValueError):
            await lane.run(int, "x")

    asyncio.run(go())


def test_a_folder_is_one_workers_and_names_it(tmp_path):
    with claimed(tmp_path) as name, pytest.raises(Misconfigured, match="another worker"):
        with claimed(tmp_path):
            pass
    with claimed(tmp_path) as again:
        assert again == name and len(name) == 32
    path = tmp_path / "sources.toml"
    head = '[[source]]\nkey = "a"\nconnector = "mt940"\nname = "A"\nplace = { type = "folder", folder = "x" }\n'  # fmt: skip
    path.write_text(head + 'at = ["06:00"]\nzone = "Europe/Kyiv"\nexpected_by = "10:00"\n')
    (source,) = read_sources(path)
    assert source.schedule == Schedule(at=("06:00",), zone=KYIV, expected_by="10:00")
    assert source.retry == Policy(tries=3, deadline_s=600)
    path.write_text(head + 'zone = "Nowhere"\n')
    with pytest.raises(Misconfigured, match="no time zone 'Nowhere'"):
        read_sources(path)
