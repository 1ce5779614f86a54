"""What a study file becomes: its profile, its defaults, its overrides."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_samples import TEXT, changed, loaded, made_up_lab

from ablate.errors import UserError
from ablate.study.contrast import level_text
from ablate.study.expand import cells, frame
from ablate.study.hypotheses import coverage
from ablate.study.load import load

SHIPPED = Path(__file__).parents[2] / "studies" / "memory_vs_arch.yaml"


@pytest.fixture
def lab() -> Iterator[None]:
    with made_up_lab():
        yield


@pytest.mark.usefixtures("lab")
class TestProfiles:
    def test_standard_is_the_file_as_it_stands(self, tmp_path: Path) -> None:
        study = loaded(tmp_path)
        assert (study.profile, study.seeds, study.train.updates) == ("standard", 4, 100)
        assert study.profiles == ("standard", "quick", "big")
        assert study.designs["core"].levels["mixer"] == ("attention", "gru", "mlp")

    def test_a_profile_changes_what_it_names_and_nothing_else(self, tmp_path: Path) -> None:
        study = loaded(tmp_path, profile="quick")
        assert (study.seeds, study.train.updates, study.model.parameters) == (2, 10, 1000)
        assert list(study.designs) == ["core"]
        core = study.designs["core"]
        assert core.levels == {"mixer": ("gru",), "context": (1, 20), "condition": ("none", "time")}
        assert core.why == "The question."

    def test_a_profile_may_add_a_design(self, tmp_path: Path) -> None:
        study = loaded(tmp_path, profile="big")
        assert list(study.designs) == ["core", "extra", "heads"]
        assert study.model.layers == 3

    def test_an_override_lies_over_the_profile(self, tmp_path: Path) -> None:
        sets = ["train.updates=7", "seeds=3", "train.learning_rate=1e-4"]
        study = loaded(tmp_path, profile="quick", overrides=sets)
        assert (study.train.updates, study.seeds, study.train.learning_rate) == (7, 3, 1e-4)

    @pytest.mark.parametrize(("text", "target"), [("p75", "p75"), ("3600", 3600.0)])
    def test_the_target_is_a_percentile_or_a_number(
        self, tmp_path: Path, text: str, target: str | float
    ) -> None:
        study = loaded(tmp_path, overrides=[f"measure.rollout.target={text}"])
        (found,) = {cell.config["measure"]["rollout"]["target"] for cell in cells(study)}
        assert found == target

    def test_hypotheses_take_the_study_s_margin_and_a_family_by_rank(self, tmp_path: Path) -> None:
        first, second, _ = loaded(tmp_path).hypotheses
        assert (first.margin, first.family, second.family) == (3, "primary", "secondary")

    def test_a_margin_in_points_is_not_given_to_another_metric(self, tmp_path: Path) -> None:
        text = changed("    threshold: 3", "    metric: action_error")
        assert loaded(tmp_path, text).hypotheses[0].margin is None

    def test_unnamed_factors_need_not_be_declared(self, tmp_path: Path) -> None:
        text = TEXT.replace("  history: [states+actions, states]\n", "")
        assert loaded(tmp_path, text).factors["history"] == ("states+actions",)

    def test_merge_keys_and_anchors_are_understood(self, tmp_path: Path) -> None:
        text = changed(
            "where: {data: lab/mixed, condition: time}",
            "where: &at {data: lab/mixed, condition: time}",
        )
        text = text.replace("where: {context: 1, condition: time}", "where: {<<: *at, context: 1}")
        assert loaded(tmp_path, text).hypotheses[1].where["data"] == "lab/mixed"


class TestTheShippedStudy:
    """studies/memory_vs_arch.yaml, with the real parts."""

    def test_standard_has_all_cells_that_its_comments_promise(self) -> None:
        study = load(SHIPPED)
        table = frame(cells(study), study)
        assert len(table) == 14 + 12 + 6 + 6 + 12 + 3 + 6 + 6 + 7 + 3 + 6 + 4 + 4 + 3
        assert study.seeds == 5
        assert table.groupby(["mixer"]).size()["bag"] >= 1

    def test_quick_is_small_and_has_every_mixer(self) -> None:
        quick, standard = (load(SHIPPED, p) for p in ("quick", "standard"))
        small, large = (frame(cells(s), s) for s in (quick, standard))
        assert len(small) <= 35
        assert quick.seeds == 3
        assert set(small["mixer"]) == set(large["mixer"])

    def test_every_hypothesis_is_tested(self) -> None:
        for profile in ("standard", "full"):
            study = load(SHIPPED, profile)
            table = frame(cells(study), study)
            assert {coverage(h, study.levels, table).words for h in study.hypotheses} == {"tested"}

    def test_the_control_without_memory_compares_every_pair(self) -> None:
        study = load(SHIPPED)
        table = frame(cells(study), study)
        (control,) = [h for h in study.hypotheses if h.id == "agree-without-memory"]
        found = coverage(control, study.levels, table)
        assert len(found.claims) == 15
        assert all(level_text(1) in claim.where["context"] for claim in found.claims)


@pytest.mark.usefixtures("lab")
class TestBudgetsAsAFactor:
    """`train.updates` may be varied beside checkpoints, which must lie within every level."""

    BUDGETS = "factors:\n  train.updates: [30, 900]\n"

    def text(self, checkpoint: int) -> str:
        text = TEXT.replace("factors:\n", self.BUDGETS, 1).replace("train: {updates: 10}", "", 1)
        return text.replace("train: {updates: 100}", f"train: {{checkpoints: [{checkpoint}]}}")

    def test_every_level_may_have_the_checkpoint(self, tmp_path: Path) -> None:
        study = loaded(tmp_path, self.text(30))
        assert {tuple(cell.config["train"]["checkpoints"]) for cell in cells(study)} == {(30,)}

    def test_another_setting_of_training_may_be_varied_beside_them(self, tmp_path: Path) -> None:
        both = self.BUDGETS.replace("[30, 900]", "[850, 900]") + "  train.loss: [all, last]\n"
        study = loaded(tmp_path, self.text(850).replace(self.BUDGETS, both))
        assert {tuple(cell.config["train"]["checkpoints"]) for cell in cells(study)} == {(850,)}

    def test_a_level_below_the_checkpoint_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"30.*checkpoints: found 31, after the last of 30"):
            loaded(tmp_path, self.text(31))
