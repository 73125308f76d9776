"""Entries as a company makes them: kinds and fields of the shipped modules, records that live."""

import random
import tomllib
from functools import cache
from pathlib import Path
from uuid import UUID, uuid5

from appliance.kernel.change import GENESIS, Body, Entry, EntryOp, Logged, chain_hash

MODULES = Path(__file__).resolve().parents[2] / "appliance" / "modules"
LOG_KEY = b"k" * 32
NAMES = (
    "Олена Бондар|Iryna Koval|Сергей Мельник|Maria Petrenko|ТОВ Світанок|ООО Вектор|Nova Ltd".split(
        "|"
    )
)
TEXTS = (
    "Call back on Monday about the delivery|Перезвонить после обеда, ждут счёт|Просив знижку на "
    "наступне замовлення|Wants the second batch in blue|Оплата частями, срок до конца месяца|"
    "Договір підписано, оригінал у головному офісі"
).split("|")


@cache
def kinds():
    """(kind, fields) of every module."""
    found = []
    for path in sorted(MODULES.glob("*/kinds.toml")):
        for kind in tomllib.loads(path.read_text("utf-8"))["kinds"]:
            fields = [f for f in kind.get("fields", []) if f["type"] not in ("rollup", "formula")]
            if fields:
                found.append((kind["key"], fields))
    return found


class Life:
    """One node's writing in one stream; every choice follows from the seed."""

    def __init__(self, seed, origin=1, *, known=200, oseq=0, previous=GENESIS):
        self.dice = random.Random(seed)
        self.stream = self.ident(0x7000)
        self.origin, self.oseq, self.hash = origin, oseq, previous
        self.ms = 1_790_000_000_000 + self.dice.randrange(10**9)
        self.tick = 0
        self.people = [self.ident() for _ in range(4)]
        self.rev = self.dice.randrange(40, 400)
        self.records = [self._old() for _ in range(known)]

    def ident(self, head=0x7000, ms=None):
        """A UUIDv7."""
        ms = ms if ms is not None else 1_760_000_000_000 + self.dice.randrange(3 * 10**10)
        return UUID(int=ms << 80 | head << 64 | 2 << 62 | self.dice.getrandbits(62))

    def _old(self):
        kind, fields = self.dice.choice(kinds())
        dot = f"{self.origin}.{self.dice.randrange(1, self.oseq + 2)}"
        return [self.ident(), kind, fields, {"": dot}]

    def value(self, field):
        dice = self.dice
        match field["type"]:
            case "money" | "decimal" | "percent" | "quantity":
                return f"{dice.randrange(1, 100_000)}.{dice.choice(['00', '50', '10', '99'])}"
            case "integer":
                return dice.randrange(1000)
            case "date":
                return f"2026-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}"
            case "moment":
                return f"2026-11-{dice.randrange(1, 29):02}T{dice.randrange(24):02}:{dice.randrange(60):02}:00.000Z"
            case "yes_no":
                return dice.random() < 0.5
            case "choice":
                return dice.choice(field.get("options", {}).get("choices", [{"key": "a"}]))["key"]
            case "reference" | "person" | "unit":
                return str(self.ident())
            case "phone":
                return f"+380{dice.randrange(10**8, 10**9)}"
            case "email":
                return f"m{dice.randrange(10**5)}@example.org"
            case "long_text":
                return " ".join(dice.choices(TEXTS, k=dice.randrange(1, 5)))
            case _:
                return f"{dice.choice(NAMES)} {dice.randrange(1000)}"

    def log(self, op, record, body, *, tx=None, change_set=None, door="http", ahead=0, parked=""):
        """The next entry, chained."""
        self.oseq += 1
        entry = Entry(
            stream=self.stream, origin=self.origin, oseq=self.oseq, tx=tx or self.oseq,
            hlc=self.ms << 16 | self.tick, actor=self.dice.choice(self.people), door=door,
            kind=record[1], record_id=record[0], op=op, schema_rev=self.rev,
            change_set=change_set or self.ident(ms=self.ms - self.dice.randrange(1, 9)), body=body,
        )  # fmt: skip
        self.hash = chain_hash(LOG_KEY, self.hash, entry)
        return Logged(entry=entry, hash=self.hash, ehlc=entry.hlc - ahead, parked=parked)

    def wait(self, most=90_000):
        """Time goes on between two edits."""
        self.ms += self.dice.randrange(1, most)
        self.tick = 0

    def edit(self, record=None, fields=1):
        """Some fields of one record."""
        self.wait()
        record = record or self.dice.choice(self.records)
        chosen = self.dice.sample(record[2], min(fields, len(record[2])))
        body = Body(
            fields={f["name"]: self.value(f) for f in sorted(chosen, key=lambda f: f["name"])},
            base={
                r: [record[3].get(r, record[3][""])]
                for r in sorted({f.get("group") or f["name"] for f in chosen})
            },
            groups={f["group"]: [f["name"]] for f in chosen if f.get("group")},
        )
        made = self.log(EntryOp.PUT, record, body)
        record[3].update(dict.fromkeys(body.base, made.entry.dot))
        return made

    def create(self, count=1):
        """Records of one kind, in one transaction."""
        self.wait()
        kind, fields = self.dice.choice(kinds())
        tx, change_set, made = self.oseq + 1, self.ident(ms=self.ms - 2), []
        for n in range(count):
            record = [self.ident(0x7000 + n % 4096, self.ms - 1), kind, fields, {}]
            named = sorted(
                {"title", *(f["name"] for f in fields[:8])} & {f["name"] for f in fields}
            )
            values = {f["name"]: self.value(f) for f in fields if f["name"] in named}
            system = {"@number": f"N-{self.oseq:06}", "@unit": str(self.stream)}
            body = Body(fields=dict(sorted({**values, **system}.items())))
            self.tick = n
            made.append(self.log(EntryOp.NEW, record, body, tx=tx, change_set=change_set))
            record[3][""] = made[-1].entry.dot
            self.records.append(record)
        return made

    def delete(self):
        """One record goes."""
        self.wait()
        record = self.dice.choice(self.records)
        seen = sorted({*record[3].values()})
        return self.log(EntryOp.DEL, record, Body(base={"!": [record[3][""]]}, seen=seen))

    def live(self, count):
        """A mixed day."""
        made = []
        while len(made) < count:
            chance = self.dice.random()
            if chance < 0.7:
                made.append(self.edit(fields=self.dice.choice([1, 1, 1, 2, 4])))
            elif chance < 0.95:
                made += self.create(self.dice.choice([1, 1, 2, 6]))
            else:
                made.append(self.delete())
        return made


def name_of(text):
    """A fixed id."""
    return uuid5(UUID(int=7), text)
