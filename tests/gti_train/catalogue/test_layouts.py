"""Every layout becomes the same catalogue, survives the disk, and says where it is broken."""

import gzip
import json

import pytest

from gti_diag.errors import InputError
from gti_train.catalogue.layouts import LAYOUTS
from gti_train.catalogue.layouts.minionerec import joined
from gti_train.catalogue.reading import open_catalogue, read_catalogue
from gti_train.catalogue.writing import write_catalogue

TITLES = {"1": "Red lamp", "2": "Oak desk", "3": "Wool scarf"}
HISTORIES = {"u": ["1", "2", "3"], "v": ["2", "2"]}
PRODUCTS_2014 = "".join(
    str({"asin": item, "title": title, "categories": [["Home"]]}) + "\n" for item, title in TITLES.items()
)


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def reviews(user, item, time):
    events = [(who, what, moment) for who, items in HISTORIES.items() for moment, what in enumerate(items)]
    return lines(*({user: who, item: what, time: 100 + moment} for who, what, moment in events))


def ratings(form, header=""):
    events = [(who, what, moment) for who, items in HISTORIES.items() for moment, what in enumerate(items)]
    return header + "".join(form.format(who, what, 100 + moment) + "\n" for who, what, moment in events)


CODES = {"1": ["<a_0>", "<b_0>"], "2": ["<a_0>", "<b_1>"], "3": ["<a_1>", "<b_0>"]}
MINI = "user_id,history_item_title,item_title,history_item_id,item_id\n"
FOLDERS = {
    "json-lines": {
        "items.jsonl": lines(*({"item_id": item, "title": title} for item, title in TITLES.items())),
        "users.jsonl": lines(*({"user_id": user, "items": items} for user, items in HISTORIES.items())),
    },
    "tables": {
        "goods.csv": "sku,name\n" + "".join(f'{item},"{title}"\n' for item, title in TITLES.items()),
        "sales.tsv": ratings("{}\t{}\t2024-05-31T00:00:{}", "customer_id\tsku\tdate\n").replace(":1", ":"),
    },
    "lc-rec": {
        "X.item.json": json.dumps({item: {"title": title, "description": "", "categories": "Home, Den"} for item, title in TITLES.items()}),
        "X.inter.json": json.dumps({user: [int(item) for item in items] for user, items in HISTORIES.items()}),
        "X.index.json": json.dumps(CODES),
    },
    "minionerec": {
        "info/X.txt": "".join(f"{''.join(CODES[item])}\t{title}\t{item}\n" for item, title in TITLES.items()),
        "train/X.csv": MINI + 'u,"[]","",[1],2\n',
        "test/X.csv": MINI + 'u,"[]","","[1, 2]",3\nv,"[]","",[2],2\n',
    },
    "amazon": {
        "reviews.json": reviews("reviewerID", "asin", "unixReviewTime"),
        "meta.json": PRODUCTS_2014,
    },
    "movielens": {
        "u.data": ratings("{}\t{}\t5\t{}"),
        "u.item": "".join(f"{item}|{title}|1995||http|{'0|' * 18}1\n" for item, title in TITLES.items()),
    },
    "vibrent": {
        "original_orders.csv": ratings("{};{};{};x", "customer.id;outfit.id;rentalPeriod.start;end\n").replace(";10", ";2019-08-1"),
        "outfits.csv": "id;name\n" + "".join(f"{item};{title}\n" for item, title in TITLES.items()),
    },
}  # fmt: skip


def laid(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="latin-1" if name.startswith("u.") else "utf-8")
    return folder


def chosen(catalogue):
    return {user: [event.item_id for event in events] for user, events in catalogue.histories.items()}


def test_each_layout_has_a_case():
    assert {layout.name for layout in LAYOUTS} == set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_layout_is_found_and_read_and_survives_the_disk(name, tmp_path):
    found = open_catalogue(laid(tmp_path / "source", FOLDERS[name]))
    assert found.layout == name and found.why
    assert {item.id: item.title for item in found.catalogue.items} == TITLES
    assert chosen(found.catalogue) == HISTORIES
    assert found.timed == (name in ("tables", "amazon", "movielens", "vibrent"))
    assert found.codes == (
        {item: tuple(code) for item, code in CODES.items()} if name in ("lc-rec", "minionerec") else {}
    )
    assert open_catalogue(tmp_path / "source", layout=name).why == "as asked"
    paths = write_catalogue(found.catalogue, tmp_path / "out")
    assert read_catalogue(*paths) == found.catalogue


@pytest.mark.parametrize(
    ("edition", "user", "item", "time", "product"),
    [
        ("2018", "reviewerID", "asin", "unixReviewTime", {"asin": "1", "title": "Red lamp", "category": ["Home", "Light"], "brand": "Lux"}),
        ("2023", "user_id", "parent_asin", "timestamp",
         {"parent_asin": "1", "title": "Red lamp", "categories": ["Home", "Light"], "store": "Lux", "description": ["Warm", "light."]}),
    ],
)  # fmt: skip
def test_later_editions_of_amazon_have_other_names(tmp_path, edition, user, item, time, product):
    (tmp_path / "meta.jsonl").write_text(lines(product, {**product, next(iter(product)): "2"}), encoding="utf-8")
    with gzip.open(tmp_path / "reviews.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines({user: "u", item: "2", time: 1.7e12}, {user: "u", item: "1", time: 5}))
    catalogue = open_catalogue(tmp_path).catalogue
    assert catalogue.items[0].brand == "Lux" and catalogue.items[0].category == ("Home", "Light")
    assert [(event.item_id, event.time) for event in catalogue.histories["u"]] == [("1", 5), ("2", 1_700_000_000_000)]


@pytest.mark.parametrize("files", [
    {"ratings.dat": ratings("{}::{}::5::{}"), "movies.dat": "1::Red lamp::Drama|War\n2::Oak desk::\n3::Wool scarf::\n"},
    {"ratings.csv": ratings("{},{},5.0,{}", "userId,movieId,rating,timestamp\n"),
     "movies.csv": 'movieId,title,genres\n1,Red lamp,Drama|War\n2,Oak desk,(no genres listed)\n3,"Wool scarf",\n'},
])  # fmt: skip
def test_later_editions_of_movielens(tmp_path, files):
    catalogue = open_catalogue(laid(tmp_path, files)).catalogue
    assert chosen(catalogue) == HISTORIES
    assert [item.category for item in catalogue.items] == [("Drama", "War"), (), ()]


def test_parquet_shards_and_mapped_columns(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    for part, item in enumerate(TITLES):
        table = {"code": [int(item)], "label": [TITLES[item]], "path": ["Home > Den"]}
        write_table(pyarrow.table(table), tmp_path / f"part-{part}.parquet")
    columns = {"item_id": "code", "title": "label", "category": "path"}
    found = open_catalogue(tmp_path, columns=columns)
    assert {item.id: item.title for item in found.catalogue.items} == TITLES
    assert found.catalogue.items[0].category == ("Home", "Den")
    with pytest.raises(InputError, match="no column 'sku'; its columns are code, label, path"):
        open_catalogue(tmp_path / "part-0.parquet", columns={"item_id": "sku"})
    (tmp_path / "part-9.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"part-9\.parquet: no Parquet file"):
        open_catalogue(tmp_path, columns=columns)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message", "kind"),
    [
        (
            "json-lines",
            "items.jsonl",
            '{"item_id": "2"',
            '{"item_id": 1',
            "line 2: item_id '1' occurs",
            "duplicate_item",
        ),
        ("json-lines", "users.jsonl", '["2", "2"]', '["2", "9"]', "line 2: event of unknown item '9'", "unknown_item"),
        ("tables", "goods.csv", '2,"Oak desk"', "2,Oak,desk", "line 3: 3 fields, but the header names 2", "bad_row"),
        ("tables", "sales.tsv", "2024-05-31T00:00:00", "noon", "line 2: event time 'noon'", "bad_time"),
        ("lc-rec", "X.inter.json", "[2, 2]", "[2, 7]", "user 'v': event of unknown item '7'", "unknown_item"),
        ("lc-rec", "X.index.json", '["<a_0>", "<b_1>"]', "7", "item '2': code 7 is not a list", "bad_code"),
        ("minionerec", "train/X.csv", ",[1],2", ",one,2", "line 2: history_item_id 'one'", "bad_row"),
        ("minionerec", "info/X.txt", "<a_1>", "<a>", "line 3: not a code, a title", "bad_row"),
        ("amazon", "meta.json", "{'asin': '2'", "{'asin': '2", "line 2: not JSON", "not_json"),
        ("movielens", "u.data", "u\t2\t5", "u\t2", "line 2: 3 fields", "bad_row"),
        ("vibrent", "original_orders.csv", "u;2", ";2", "line 3: user_id is ''", "no_user_id"),
    ],
)
def test_a_broken_record_is_named_or_counted(tmp_path, name, file, old, new, message, kind):
    files = dict(FOLDERS[name])
    assert old in files[file]
    files[file] = files[file].replace(old, new, 1)
    with pytest.raises(InputError, match=message) as refusal:
        open_catalogue(laid(tmp_path, files), layout=name)
    assert file.rsplit("/")[-1] in str(refusal.value) and "\n" not in str(refusal.value)
    found = open_catalogue(tmp_path, layout=name, skip_bad=True)
    assert found.skipped[kind] >= 1


def test_line_separators_inside_strings_do_not_end_a_line(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"item_id": 1, "title": "a\u2028b\u0085c"}\n', encoding="utf-8")
    assert open_catalogue(tmp_path).catalogue.items[0].title == "a b c"


def test_mixed_encodings_are_told_by_line_and_byte(tmp_path):
    good, bad = (
        '{"item_id": 1, "title": "caf\u00e9"}\n'.encode(),
        '{"item_id": 2, "title": "caf\u00e9"}\n'.encode("latin-1"),
    )
    (tmp_path / "items.jsonl").write_bytes(b"\xef\xbb\xbf" + good + bad)
    with pytest.raises(InputError, match=r"items\.jsonl, line 2: not UTF-8 text \(byte 29 is 0xe9\)"):
        open_catalogue(tmp_path)
    found = open_catalogue(tmp_path, skip_bad=True)
    assert found.skipped == {"bad_encoding": 1} and found.catalogue.items[0].title == "café"


def test_a_damaged_archive_is_told(tmp_path):
    with gzip.open(tmp_path / "reviews.json.gz", "wt") as file:
        file.write(FOLDERS["amazon"]["reviews.json"] * 999)
    whole = (tmp_path / "reviews.json.gz").read_bytes()
    (tmp_path / "reviews.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"reviews\.json\.gz: cannot be read to its end"):
        open_catalogue(tmp_path, layout="amazon")


def test_sources_without_a_layout_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_catalogue(tmp_path / "none")
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(InputError, match=r"\(notes\.md\) has no layout that is known"):
        open_catalogue(tmp_path)
    with pytest.raises(InputError, match="layout 'poem' is unknown: use one of minionerec, lc-rec"):
        open_catalogue(tmp_path, layout="poem")
    with pytest.raises(InputError, match="has not the layout vibrent"):
        open_catalogue(tmp_path, layout="vibrent")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column for item_id with title"):
        open_catalogue(tmp_path / "t.csv")


def test_two_catalogues_in_one_folder_must_be_told_apart(tmp_path):
    for name in ("X", "Y"):
        laid(tmp_path, {file.replace("X", name): text for file, text in FOLDERS["lc-rec"].items()})
    with pytest.raises(InputError, match=r"several catalogues \(x, y\): name a file of one"):
        open_catalogue(tmp_path)
    assert chosen(open_catalogue(tmp_path / "Y.inter.json").catalogue) == HISTORIES


@pytest.mark.parametrize(
    ("known", "seen", "expected"),
    [
        ("", "abc", "abc"),
        ("abc", "bcd", "abcd"),
        ("abc", "abc", "abc"),
        ("abcd", "cd", "abcd"),
        ("ab", "xy", "abxy"),
        ("aa", "aaa", "aaa"),
    ],
)
def test_histories_join_at_their_longest_overlap(known, seen, expected):
    assert "".join(joined(list(known), list(seen))) == expected
