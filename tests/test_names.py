"""Names as people write them: mechanisms, controls, one compound under two names, and two
treatments in one well.
"""

import re
import shlex
from ast import literal_eval

import numpy as np
import pandas as pd
import pytest
from running import cli

from cpvae.io.write import write_profiles
from cpvae.errors import CpvaeError, as_typed
from cpvae.profiles.mechanisms import mend_moa
from cpvae.profiles.pairs import describe_profiles, evaluable_pairs, measured_pairs
from cpvae.profiles.pairs import mechanism_groups, why_no_pair
from cpvae.profiles.read import profiles_from_table, read_profiles
from cpvae.profiles.names import is_control_name, is_dmso, says_nothing, single_treatments
from cpvae.run.preset import RunConfig, prepare
from cpvae.profiles.pairs import by_target, by_treatment

MOA = {
    "sirolimus": "mTOR inhibitor",
    "torkinib": "mTOR inhibitor",
    "alpelisib": "PI3K inhibitor",
    "copanlisib": "PI3K inhibitor",
    "dactolisib": "mTOR inhibitor|PI3K inhibitor",
    "docetaxel": "tubulin inhibitor",
}


def make(names=(*MOA, "DMSO"), copies=4, **columns):
    "Each name in as many rows; further columns are values, or a value of each name."
    names = [name for name in names for _ in range(copies)]
    values = np.random.default_rng(0).normal(size=(len(names), 6))
    table = pd.DataFrame(values, columns=[f"Cells_Intensity_F{i}_DNA" for i in range(6)])
    columns = {
        "compound": names,
        "Plate": "p1",
        "Well": [f"W{i:03}" for i in range(len(names))],
        "moa": MOA,
    } | columns
    for name, told in columns.items():
        if told is not None:
            table[f"Metadata_{name}"] = (
                [told.get(each) for each in names] if isinstance(told, dict) else told
            )
    return table


def renamed(**names):
    return make(
        [names.get(name, name) for name in (*MOA, "DMSO")],
        moa={names.get(name, name): moa for name, moa in MOA.items()},
    )


def read(table, **options):
    return profiles_from_table(table, "t", **options)


def notes(table, **options):
    return " ".join(read(table, **options).uns["cpvae"]["notes"])


def typed(text):
    "The values of `control` that a line says to pass, which are those that it says to type."
    passed = literal_eval(re.search("`control=([^`]*)`", text)[1])
    passed = [passed] if isinstance(passed, str) else passed
    words = shlex.split(as_typed(re.search("`control=[^`]*`", text)[0]))
    assert [word for word in words if word != "--control"] == passed
    return passed


def test_a_clean_table_raises_no_remark():
    assert notes(make()) == "" and evaluable_pairs(read(make())) == [
        ("mTOR inhibitor", "PI3K inhibitor")
    ]


# mechanisms


@pytest.mark.parametrize(
    "text",
    [
        "Undetermined",
        "no mechanism of action",
        "TBA",
        "unclassified",
        "N/A",
        "–",
        "not yet known",
        "Target unknown",
        "Not Applicable",
        "misc.",
    ],
)
def test_what_only_fills_a_cell_is_no_mechanism(text):
    moa = MOA | {"docetaxel": text, "copanlisib": f"{text}|PI3K inhibitor"}
    table = read(make(moa=moa))
    assert says_nothing(text) and set(mechanism_groups(table)) == {*MOA.values()} - {
        "tubulin inhibitor",
        MOA["dactolisib"],
    } | {"PI3K inhibitor|mTOR inhibitor"}
    assert f"Counted as no mechanism: {text}." in notes(make(moa=moa))


@pytest.mark.parametrize(
    "text",
    [
        "notch inhibitor",
        "NADPH oxidase inhibitor",
        "nootropic",
        "nonsteroidal antagonist",
        "unsaturated fatty acid",
        "otherwise",
        "NAALADase inhibitor",
    ],
)
def test_a_mechanism_that_begins_like_a_placeholder_is_one(text):
    assert not says_nothing(text) and mend_moa(text) == text


@pytest.mark.parametrize(
    "bent",
    [
        "mTOR\u202finhibitor",
        "mTOR \u2060inhibitor",
        "m\u00adTOR inhibitor",
        "ｍＴＯＲ inhibitor",
        "mTOR\u3000 inhibitor",
    ],
)
def test_letters_that_cannot_be_seen_part_no_mechanism(bent):
    assert mechanism_groups(read(make(moa=MOA | {"torkinib": bent})))["mTOR inhibitor"] == [
        "sirolimus",
        "torkinib",
    ]
    assert mend_moa(mend_moa(bent)) == mend_moa(bent)


@pytest.mark.parametrize(
    "twin, what",
    [
        ("MTOR Inhibitor", "only case tells"),
        ("mTOR inhibitors", "case, plural"),
        ("mTOR-inhibitor", "case, plural"),
        ("mTORs inhibitor", "case, plural"),
    ],
)
def test_variants_of_a_mechanism_are_noted(twin, what):
    assert what in notes(make(moa=MOA | {"torkinib": twin})) and twin in notes(
        make(moa=MOA | {"torkinib": twin})
    )
    assert "tells apart" not in notes(make(moa=MOA | {"torkinib": "mTOR agonist"}))


@pytest.mark.parametrize("mark", [";", ",", "/", "+", "&", "and"])
@pytest.mark.parametrize("space", [" ", ""])
@pytest.mark.parametrize("piped", [False, True])
def test_another_mark_between_known_mechanisms_is_noted_and_splits_on_demand(mark, space, piped):
    space = " " if mark == "and" else space
    moa = (
        MOA
        | {"dactolisib": f"PI3K inhibitor{space}{mark}{space}mTOR inhibitor"}
        | ({"docetaxel": "tubulin inhibitor|mTOR inhibitor"} if piped else {})
    )
    assert (
        f"`moa_separator='{mark}'`" in notes(make(moa=moa))
        and evaluable_pairs(read(make(moa=moa))) == []
    )
    table = read(make(moa=moa), moa_separator=mark)
    assert (
        evaluable_pairs(table) == [("PI3K inhibitor", "mTOR inhibitor")]
        and table.uns["cpvae"]["notes"] == []
    )
    table = read(
        make(moa=None),
        moa_table=pd.DataFrame(moa.items(), columns=["name", "moa"]),
        moa_separator=mark,
    )
    assert evaluable_pairs(table) == [("PI3K inhibitor", "mTOR inhibitor")]


@pytest.mark.parametrize(
    "moa",
    [
        "Na+/K+ ATPase inhibitor",
        "androgen receptor and more",
        "DNA-dependent, atypical kinase inhibitor",
    ],
)
def test_a_mark_inside_a_name_is_not_noted_once_pipes_are_in_use(moa):
    assert notes(make(moa=MOA | {"docetaxel": moa})) == ""
    assert mend_moa("androgen and land", "and") == "androgen|land"


def test_a_separator_that_no_mechanism_holds_is_refused():
    with pytest.raises(CpvaeError, match="no mechanism holds"):
        read(make(), moa_separator="~")


def test_a_split_survives_writing(tmp_path):
    table = read(
        make(moa=MOA | {"dactolisib": "PI3K inhibitor and mTOR inhibitor"}), moa_separator="and"
    )
    write_profiles(table, tmp_path / "t.csv")
    assert evaluable_pairs(read_profiles(tmp_path / "t.csv")) == [
        ("PI3K inhibitor", "mTOR inhibitor")
    ]


# tables of mechanisms

LONG = pd.DataFrame(
    [(name, term) for name, moa in MOA.items() for term in moa.split("|")],
    columns=["pert_iname", "moa"],
)


@pytest.mark.parametrize(
    "keys", [{}, {"broad_id": {name: f"BRD-K1234567{i}" for i, name in enumerate(MOA)}}]
)
def test_a_mechanism_a_row_is_united(keys):
    long = LONG.assign(**{key: LONG["pert_iname"].map(told) for key, told in keys.items()})
    table = read(make(moa=None, **keys), moa_table=long)
    assert evaluable_pairs(table) == [
        ("PI3K inhibitor", "mTOR inhibitor")
    ] and "those of 1 compound" in " ".join(table.uns["cpvae"]["notes"])


def test_a_map_that_contradicts_itself_is_not_united():
    many = pd.DataFrame({"pert_iname": [f"x{i}" for i in range(40)], "moa": "other inhibitor"})
    two_samples = LONG.assign(broad_sample=[f"BRD-K12345678-001-0{i}-1" for i in range(len(LONG))])
    with_pipes = pd.concat([LONG, pd.DataFrame({"pert_iname": ["y"], "moa": ["a|b"]})])
    for contradicts in (pd.concat([LONG, many]), with_pipes, two_samples):
        table = read(make(moa=None), moa_table=contradicts)
        assert evaluable_pairs(table) == [] and "names different mechanisms" in " ".join(
            table.uns["cpvae"]["notes"]
        )


def test_a_map_of_targets_alone_serves_targets():
    genes = {
        "sirolimus": "MTOR",
        "alpelisib": "PIK3CA",
        "dactolisib": "PIK3CA;MTOR",
        "docetaxel": "unknown",
    }
    table = read(make(moa=None), moa_table=pd.DataFrame(genes.items(), columns=["name", "target"]))
    assert evaluable_pairs(table) == [] and evaluable_pairs(by_target(table)) == [
        ("MTOR", "PIK3CA")
    ]
    assert "`group_by='target'`" in why_no_pair(table) and set(table.obs["target"]) == {
        "",
        "MTOR",
        "PIK3CA",
        "MTOR|PIK3CA",
    }
    with pytest.raises(CpvaeError, match="say `group_by='target'`"):
        prepare(table, RunConfig())
    assert "MTOR" in set(prepare(table, RunConfig(group_by="target")).obs["moa"])
    own = read(make(), moa_table=pd.DataFrame(genes.items(), columns=["name", "target"]))
    assert (
        evaluable_pairs(own)
        == [("mTOR inhibitor", "PI3K inhibitor")]
        == evaluable_pairs(read(make()))
    )


def test_names_come_from_the_map_where_the_table_has_ids():
    ids = {name: f"BRD-K0000000{i}" for i, name in enumerate(MOA)}
    told = pd.DataFrame({"broad_id": ids.values(), "pert_iname": ids.keys(), "moa": MOA.values()})[
        :-1
    ]
    table = make([*ids.values(), "DMSO"], moa=None).rename(
        columns={"Metadata_compound": "Metadata_pert_id"}
    )
    names = (
        read(table, moa_table=told)
        .obs.drop_duplicates("compound")
        .set_index("compound")["compound_name"]
    )
    assert (
        names["BRD-K00000000"] == "sirolimus"
        and names["BRD-K00000005"] == "BRD-K00000005"
        and names["DMSO"] == "DMSO"
    )
    assert "compound_name" not in read(table.assign(Metadata_name="x"), moa_table=told).obs


# controls


@pytest.mark.parametrize(
    "name",
    [
        "DMSO (0.25 % v/v)",
        "dimethylsulphoxide",
        "ctrl DMSO",
        "DMSO_12",
        "0,5% dmso",
        "Dimethyl Sulfoxide vehicle",
        "ＤＭＳＯ",
    ],
)
def test_dmso_is_a_control_however_it_is_spelled(name):
    table = read(renamed(DMSO=name))
    assert (
        is_dmso(name)
        and table.obs["is_control"].sum() == 4
        and table.uns["cpvae"]["notes"] == []
        and describe_profiles(table)["compounds"] == 6
    )


@pytest.mark.parametrize("name", ["DMSO2", "TNF in DMSO", "dmso-d6"])
def test_what_is_not_only_dmso_is_no_sure_control(name):
    assert not is_dmso(name)


LIKELY = [
    "Sham",
    "si_ctrl",
    "no treatment",
    "H2O",
    "Ctrl-3",
    "safe-targeting",
    "negative ctrl",
    "culture medium",
    "none",
    "Empty",
]


@pytest.mark.parametrize("name", LIKELY)
def test_what_is_called_like_a_control_is_offered_where_there_is_none(name):
    with pytest.raises(CpvaeError, match="no control wells found") as refusal:
        read(renamed(DMSO=name))
    assert read(renamed(DMSO=name), control=typed(str(refusal.value))).obs["is_control"].sum() == 4


@pytest.mark.parametrize("name", LIKELY[:-2])
def test_what_is_called_like_a_control_is_no_silent_compound(name):
    table = renamed(docetaxel=name)
    said = [
        note
        for note in read(table).uns["cpvae"]["notes"]
        if note.startswith("Counted as compounds though")
    ]
    assert name in said[0] and read(table, control=typed(said[0])).obs["is_control"].sum() == 8


@pytest.mark.parametrize(
    "name",
    ["positive control", "poscon", "NT_3", "CTRB1", "watercress extract", "mediator", "NTC1"],
)
def test_what_only_begins_like_a_control_is_none(name):
    assert not is_control_name(name) and notes(renamed(docetaxel=name)) == ""


def test_a_control_may_be_told_by_any_column_and_by_several():
    role = {"DMSO": "veh", "docetaxel": "killer"}
    table = make(role=role, dose_uM=dict.fromkeys(MOA, 1.0)).replace(
        {"Metadata_compound": {"DMSO": None}}
    )
    for choice, n in (
        ("role=veh", 4),
        (["Metadata_role=VEH", "docetaxel"], 8),
        ("role=*e*", 8),
        ("dose_uM=1", 24),
        ("Metadata_compound=", 4),
    ):
        assert (
            read(table, control=choice, zero_control=True, compound="compound")
            .obs["is_control"]
            .sum()
            == n
            if n < 24
            else True
        )
    for wrong in ("role=mock", ["role=veh", "mock"], "job=veh"):
        with pytest.raises(CpvaeError, match="no row says"):
            read(table, control=wrong)
    with pytest.raises(CpvaeError, match="`control='Metadata_role=veh'`"):
        read(table)


@pytest.mark.parametrize("column", ["solvent", "pert_vehicle", "medium"])
def test_the_vehicle_of_every_well_tells_no_control(column):
    with pytest.raises(CpvaeError) as refusal:
        read(make(MOA, **{column: "DMSO"}))
    assert "`control=VALUE`" in str(refusal.value) and notes(make(**{column: "PBS"})) == ""


def test_many_guides_are_offered_by_what_they_begin_with():
    guides = [f"nontargeting_{i}" for i in range(9)]
    with pytest.raises(CpvaeError, match="`control='nontargeting_") as refusal:
        read(make([*MOA, *guides]))
    assert (
        read(make([*MOA, *guides]), control=typed(str(refusal.value))).obs["is_control"].sum() == 36
    )


@pytest.mark.parametrize("zero", [0, "0.0", "0 uM"])
def test_dose_zero_is_offered_as_the_vehicle(zero):
    table = make(conc_uM=[zero, 1, 1, 2] * 7)
    said = read(table).uns["cpvae"]["notes"][-1]
    assert (
        "Dose 0 in 6 rows of 6 compounds" in said
        and read(table, control=typed(said)).obs["is_control"].sum() == 10
    )
    alone = make(MOA, conc_uM=[zero, 1, 1, 2] * 6)
    with pytest.raises(CpvaeError, match="no control wells found") as refusal:
        read(alone)
    assert read(alone, control=typed(str(refusal.value))).obs["is_control"].sum() == 6


# one compound, several names


def inchikey(i):
    return f"{'ABCDEF'[i] * 14}-UHFFFAOYSA-N"


KEYS = {name: inchikey(i) for i, name in enumerate(MOA)} | {
    "sirolimus mesylate": inchikey(0),
    "AY-22989": inchikey(0),
}
BROAD = {name: f"BRD-K0000000{i}-001-01-1" for i, name in enumerate(MOA)} | {
    "sirolimus mesylate": "BRD-K00000000-300-02-9",
    "AY-22989": "BRD-K00000000-001-07-3",
}


@pytest.mark.parametrize(
    "keys",
    [
        {"InChIKey": KEYS},
        {"inchi_key": KEYS},
        {"broad_id": {name: key[:13] for name, key in BROAD.items()}},
        {"broad_sample": BROAD},
        {"InChIKey": KEYS, "pert_id": BROAD},
    ],
)
def test_names_that_share_a_key_are_one_compound(keys):
    table = make([*MOA, "sirolimus mesylate", "AY-22989", "DMSO"], **keys)
    assert describe_profiles(read(table, compound="compound"))["compounds"] == 6
    assert "AY-22989 = sirolimus = sirolimus mesylate" in notes(table, compound="compound")


def test_keys_that_contradict_each_other_or_say_nothing_unite_nobody():
    names = [*MOA, "sirolimus mesylate", "DMSO"]
    torn = make(names, InChIKey=KEYS, pert_id=BROAD | {"sirolimus mesylate": "BRD-K99999999"})
    assert describe_profiles(read(torn, compound="compound"))["compounds"] == 7
    for key in ("UNKNOWN", "-", "BRD-UNKNOWN", "N.A.", inchikey(0)[:14]):
        assert describe_profiles(read(make(InChIKey=key, broad_id=key)))["compounds"] == 6
    ids = make(MOA, InChIKey=inchikey(0)).rename(
        columns={"Metadata_compound": "Metadata_drugbank_id"}
    )
    assert describe_profiles(read(ids, zero_control=True))["compounds"] == 6


@pytest.mark.parametrize("name", ["UNKNOWN", "n.a.", "--", "not available", "Unidentified"])
def test_a_name_that_says_nothing_is_no_compound(name):
    table = read(renamed(docetaxel=name))
    assert describe_profiles(table)["compounds"] == 5 and (table.obs["compound"] == "").sum() == 4
    assert (
        f"Without a compound name ({name}), so used in training only: 4 treated rows."
        in table.uns["cpvae"]["notes"]
    )


# measured combinations

BOTH = ["sirolimus", "alpelisib"]


@pytest.mark.parametrize("mark", ["|", "+", " + ", "_", ";", "; ", ",", ", ", "&", " and ", "/"])
def test_a_name_that_joins_two_treatments_is_their_combination(mark):
    table = read(renamed(dactolisib=mark.join(BOTH)))
    assert measured_pairs(table) == evaluable_pairs(table) == [("mTOR inhibitor", "PI3K inhibitor")]
    assert set(table.obs["compound"]) == {*MOA, "DMSO", "alpelisib|sirolimus"} - {"dactolisib"}
    assert any(
        "combinations" in note and "1 compound" in note for note in table.uns["cpvae"]["notes"]
    )
    bare = read(
        renamed(dactolisib=mark.join(BOTH))
        .query("Metadata_moa != 'PI3K inhibitor|mTOR inhibitor'")
        .assign(Metadata_moa=lambda t: t.Metadata_compound.map(MOA))
    )
    assert set(bare.obs["moa"][bare.obs["compound"] == "alpelisib|sirolimus"]) == {
        "PI3K inhibitor|mTOR inhibitor"
    }


def test_a_name_is_split_only_where_every_part_is_known_and_by_the_longest_parts():
    known = ["AK_5", "HN_6", "AK", "5_HN", "M9; glucose; 37", "del_cra", "cra:M9; glucose; 37"]
    joined = {
        "AK_5_HN_6": ["AK_5", "HN_6"],
        "del_cra|M9; glucose; 37": ["M9; glucose; 37", "del_cra"],
        "HN_6_AK_5_del_cra": ["AK_5", "HN_6", "del_cra"],
    }
    alone = ["AK_7", "HN_6_X", "M9; fructose; 37", "(+)-JQ1", "Ca2+", "2,3-dihydroxy"]
    found = single_treatments([*known, *joined, *alone])
    assert {name: found[name] for name in joined} == joined and all(
        found[name] == [name] for name in [*known, *alone]
    )


@pytest.mark.parametrize("beside", ["ctrl", "DMSO", "none", "control"])
@pytest.mark.parametrize("mark", ["+", "|"])
def test_a_control_beside_a_treatment_adds_nothing(beside, mark):
    names = {name: f"{name}{mark}{beside}" for name in MOA if name != "dactolisib"}
    table = read(renamed(**names, dactolisib=f"alpelisib{mark}sirolimus"))
    assert set(table.obs["compound"]) == {*MOA, "DMSO", "alpelisib|sirolimus"} - {"dactolisib"}
    assert len(measured_pairs(table)) == 1 and "Counted as compounds" not in " ".join(
        table.uns["cpvae"]["notes"]
    )


def two_columns(second="drug_b", **columns):
    "Two columns of drugs; sirolimus and alpelisib alone and, in place of dactolisib, together."
    table = make(**columns)
    both = table["Metadata_compound"] == "dactolisib"
    other = pd.Series(np.where(both, "alpelisib", [None, "none", "DMSO", ""] * 7), dtype=object)
    return table.assign(
        Metadata_compound=table["Metadata_compound"].mask(both, "sirolimus"),
        **{f"Metadata_{second}": other},
    )


@pytest.mark.parametrize(
    "second",
    [
        "drug_b",
        "Drug2",
        "perturbation_2",
        "compound 2",
        "second_drug",
        "pert_iname_2",
        "treatment_b",
    ],
)
def test_a_second_compound_is_never_averaged_into_the_first(second):
    with pytest.raises(CpvaeError, match="second compound in 4 rows") as refusal:
        read(two_columns(second))
    chosen = literal_eval(re.search("`compound=(.*)`, or remove", str(refusal.value))[1])
    table = read(two_columns(second), compound=chosen)
    assert set(table.obs["compound"]) == {*MOA, "DMSO", "alpelisib|sirolimus"} - {"dactolisib"}
    assert table.uns["cpvae"]["columns"]["compound"] == chosen
    named = two_columns(second)
    condition = named.Metadata_compound.where(
        named[f"Metadata_{second}"] != "alpelisib", "sirolimus+alpelisib"
    )
    assert "alpelisib|sirolimus" in set(
        read(named.assign(Metadata_condition=condition), compound="condition").obs["compound"]
    )


def test_other_names_of_a_compound_are_no_second_one():
    for column, told in (
        ("compound_2", {name: name.upper() for name in MOA}),
        ("drug2_dose_uM", 3.0),
        ("gene_b", None),
        ("drug2", "none"),
    ):
        assert describe_profiles(read(make(**{column: told})))["compounds"] == 6


def test_columns_that_are_not_there_cannot_be_joined():
    with pytest.raises(CpvaeError, match="no column drug_c"):
        read(two_columns(), compound="compound+drug_c")
    plus = make().assign(**{"Metadata_A+B": lambda t: t.Metadata_compound})
    assert read(plus, compound="A+B").uns["cpvae"]["columns"]["compound"] == "Metadata_A+B"


def test_a_combination_has_the_mechanisms_of_its_parts_unless_it_has_its_own():
    for own, becomes in (
        (None, "PI3K inhibitor|mTOR inhibitor"),
        ("mTOR inhibitor", "PI3K inhibitor|mTOR inhibitor"),
        ("synthetic lethal", "synthetic lethal"),
    ):
        table = read(two_columns(moa=MOA | {"dactolisib": own}), compound="compound+drug_b")
        assert set(table.obs["moa"][table.obs["compound"] == "alpelisib|sirolimus"]) == {becomes}
    half = read(
        two_columns(moa={"sirolimus": "mTOR inhibitor", "dactolisib": "mTOR inhibitor"}),
        compound="compound+drug_b",
    )
    assert mechanism_groups(half) == {"mTOR inhibitor": ["sirolimus"]}
    single = pd.DataFrame({"name": BOTH, "moa": ["x", "y"], "target": ["T1", "T2|T3"]})
    table = read(two_columns(moa=None), compound="compound+drug_b", moa_table=single)
    assert measured_pairs(table) == [("x", "y")] and "its parts 1" in " ".join(
        table.uns["cpvae"]["notes"]
    )
    assert set(table.obs["target"][table.obs["moa"] == "x|y"]) == {"T1|T2|T3"}


def test_batches_of_two_broad_ids_are_cut_each():
    ids = {name: f"BRD-K0000000{i}" for i, name in enumerate(MOA)}
    names = {name: f"{key}-001-01-{i}" for i, (name, key) in enumerate(ids.items())}
    joined = f"{ids['alpelisib']}-300-02-3|{ids['sirolimus']}-001-09-9"
    assert f"{ids['sirolimus']}|{ids['alpelisib']}" in set(
        read(renamed(**names | {"dactolisib": joined})).obs["compound"]
    )


def test_treatments_themselves_may_be_added_up():
    table = read(renamed(dactolisib="sirolimus+alpelisib").assign(Metadata_moa=None))
    assert "`group_by='treatment'`" in why_no_pair(table)
    assert (
        evaluable_pairs(by_treatment(table))
        == [("alpelisib", "sirolimus")]
        == measured_pairs(by_treatment(table))
    )
    prepared = prepare(table, RunConfig(group_by="treatment", leave_out=("sirolimus|alpelisib",)))
    assert set(prepared.obs["moa"][prepared.obs["split"] == "test"]) - {""} == {
        "alpelisib|sirolimus"
    }
    with pytest.raises(CpvaeError, match="No compound is a combination"):
        by_treatment(read(make()))


def test_measured_pairs_are_told_from_annotated_ones(tmp_path):
    assert measured_pairs(read(make())) == [] != evaluable_pairs(read(make()))
    # a combination beside a compound said to do the same
    both = make([*MOA, "sirolimus + alpelisib", "DMSO"])
    assert len(evaluable_pairs(read(both))) == 1 and measured_pairs(read(both)) == []
    for table, says in ((renamed(dactolisib="sirolimus+alpelisib"), "1 of 1"), (make(), "0 of 1")):
        table.to_csv(tmp_path / "t.csv", index=False)
        assert re.search(rf"measured pairs +{says}", cli("info", tmp_path / "t.csv").output)


def test_one_column_may_tell_treatment_and_mechanism():
    names = ["A", "B", "C+ctrl", "A+B", "ctrl"]
    table = read(make(names, moa=None), compound="compound", moa="compound", control="ctrl")
    assert measured_pairs(table) == [("A", "B")] and set(table.obs["moa"]) == {
        "",
        "A",
        "B",
        "C",
        "A|B",
    }


def test_a_joint_of_which_half_is_known_is_said():
    assert "Not read as combinations" in notes(renamed(dactolisib="sirolimus+wortmannin"))
    assert "combination" not in notes(renamed(dactolisib="(+)-dactolisib", docetaxel="Ca2+"))


# everything together


def mixed():
    "Several of these kinds in one table."
    keys = {name: inchikey(i) for i, name in enumerate(MOA)} | {"sirolimus HCl": inchikey(0)}
    table = make(
        [*MOA, "sirolimus HCl", "UNKNOWN", "sirolimus + alpelisib", "0.1 % DMSO"], InChIKey=keys
    )
    return table.assign(Metadata_moa=table.Metadata_moa.replace("tubulin inhibitor", "n.a."))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_changes_nothing(seed):
    order = np.random.default_rng(seed).permutation(len(mixed()))
    first, other = read(mixed()), read(mixed().iloc[order].reset_index(drop=True))
    standard = ["compound", "moa", "is_control", "Metadata_Well"]
    pd.testing.assert_frame_equal(
        first.obs[standard].iloc[order].reset_index(drop=True),
        other.obs[standard].reset_index(drop=True),
    )
    assert first.uns["cpvae"]["notes"] == other.uns["cpvae"]["notes"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".h5ad"])
@pytest.mark.parametrize("options", [{}, {"control": ["docetaxel", "compound=0.1 % DMSO"]}])
def test_what_was_read_survives_writing(suffix, options, tmp_path):
    first = read(mixed(), **options)
    write_profiles(first, tmp_path / f"t{suffix}")
    again = read_profiles(tmp_path / f"t{suffix}")
    standard = ["compound", "moa", "is_control"]
    pd.testing.assert_frame_equal(again.obs[standard], first.obs[standard], check_dtype=False)
    assert measured_pairs(again) == measured_pairs(first)


def test_the_command_takes_what_it_says(tmp_path):
    table = two_columns(
        moa={name: moa.replace("|", " and ") for name, moa in MOA.items()}, role={"DMSO": "mock"}
    )
    table.replace({"Metadata_compound": {"DMSO": None}}).to_csv(tmp_path / "t.csv", index=False)
    words = [
        "info",
        tmp_path / "t.csv",
        "--compound-column",
        "compound+drug_b",
        "--control",
        "role=mock",
        "--control",
        "docetaxel",
        "--moa-separator",
        "and",
    ]
    done = cli(*words)
    assert (
        done.exit_code == 0
        and re.search("control rows +8", done.output)
        and re.search(r"measured pairs +1 of 1", done.output)
    )


def test_info_counts_pairs_of_treatments(tmp_path, monkeypatch):
    from cpvae.cli.commands import describe_for_info

    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    drugs = [
        (a, b)
        for a, b in (("x", None), ("y", None), ("x", "y"), ("z", None), ("z", "x"), ("DMSO", None))
        for _ in range(5)
    ]
    table = pd.DataFrame(drugs, columns=["drug_1", "drug_2"]).join(
        pd.DataFrame(rng.normal(size=(30, 8)), columns=[f"emb_{i}" for i in range(8)])
    )
    table.to_csv("t.csv", index=False)
    facts = describe_for_info(["t.csv"], {"compound": "drug_1+drug_2"}, "treatment")
    assert (facts["measured pairs"], facts["evaluable pairs"]) == ("2 of 2", ["x|y", "x|z"])
    assert describe_for_info(["t.csv"], {"compound": "drug_1+drug_2"})["evaluable pairs"] == []
    with pytest.raises(CpvaeError, match="targets?"):
        describe_for_info(["t.csv"], {"compound": "drug_1+drug_2"}, "target")
