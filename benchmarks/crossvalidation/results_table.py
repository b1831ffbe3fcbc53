"""results.json of a cross-validation as a Markdown page: scores, differences, and sentences on their significance."""

from attunet.benchmarks.evaluation.results_table import METRICS, Table, aligned, interval, number, table, unit_notes
from attunet.metrics.results import CrossvalidationResults, Difference
from attunet.system.plain_text import named, table_cell

OTHERS = ("hd95_mm", "assd_mm", "chaos_score")  # metrics beside Dice in the table of differences


def summary_table(results: CrossvalidationResults) -> str:
    """Dice of every method as aligned plain text."""
    return "\n".join([aligned(_dice_rows(results)), *unit_notes(results["store"]["unit"])])


def markdown(results: CrossvalidationResults) -> str:
    dice = _dice_rows(results)
    parts = [
        "# Cross-validation",
        _introduction(results),
        *unit_notes(results["store"]["unit"]),
        *_missing(results),
        "## Dice",
        table(dice[0], dice[1:]),
        *_seed_spread(results),
        "## Significance",
        *_significance(results),
        "## Paired differences in Dice",
        *_differences(results),
        "## Every metric",
        "Means over the cases; of each case over the foreground classes and the seeds.",
        table(*_every_metric(results)),
        "## Per class",
        table(*_per_class(results)),
        "## Per case",
        "Dice, mean over the seeds.",
        table(*_per_case(results)),
        *_worst_organs(results),
        "## Time to accuracy",
        *_time(results),
        "![Every case](plots/cases.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(results: CrossvalidationResults) -> str:
    store, seeds = results["store"], results["seeds"]
    cases = sum(len(cases) for cases in store["folds"].values())
    return (
        f"Store {table_cell(store['name'])}: {cases} labelled cases of {store['num_patients']} patients in "
        f"{len(store['folds'])} folds, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}. Every case is scored by "
        "networks that were trained without it and without any other case of its patient, in 3D on its native grid, "
        "with the weights at the end of the training. A case's score is the mean over the foreground classes and over "
        "the seeds; mean, median and worst are over the cases, the 95 % interval is a bootstrap over patients (from "
        "five on)."
    )


def _missing(results: CrossvalidationResults) -> list[str]:
    missing = results["missing"]
    if not missing:
        return []
    names = table_cell(named([f"{m['run']} (step {m['step']})" if m["step"] else m["run"] for m in missing]))
    return [
        f"**Not complete: {len(missing)} of {results['num_runs']} trainings are not finished**: {names}. "
        "Rows may be of different cases; the paired differences use the cases and seeds that both sides have."
    ]


def _dice_rows(results: CrossvalidationResults) -> list[list[str]]:
    classes = [c["name"] for c in results["store"]["classes"][1:]]
    rows = [["", "mean", "95 %", "median", "worst case", *classes, "cases", "runs"]]
    for row in results["methods"]:
        dice = row["scores"]["dice"]
        worst = "–" if dice["worst"] is None else f"{dice['worst']['value']:.3f} ({dice['worst']['case']})"
        figures = [number(dice["mean"]), interval(dice["ci95"]), number(dice["median"]), worst]
        figures += [number(dice["per_class"].get(name)) for name in classes]
        rows.append([row["name"], *figures, str(row["num_cases"]), str(row["num_runs"])])
    return rows


def _seed_spread(results: CrossvalidationResults) -> list[str]:
    if len(results["seeds"]) < 2:
        return ["There is one seed: the table does not show how much these figures vary from training to training."]
    lines = []
    for row in results["methods"]:
        values = [v for v in row["scores"]["dice"]["per_seed"].values() if v is not None]
        if len(values) > 1:
            lines.append(f"{table_cell(row['name'])} {min(values):.3f} to {max(values):.3f}")
    return [f"Mean Dice from seed to seed: {'; '.join(lines)}."] if lines else []


def _significance(results: CrossvalidationResults) -> list[str]:
    comparisons = results["comparisons"]
    if not comparisons:
        return ["There is nothing to compare: only one row has finished runs."]
    notes = [
        "Differences are per patient, averaged over the seeds. The interval speaks of patients like these, not of "
        "other scanners or sites; and of these trainings: seeds are averaged, their chance is only partly in the "
        "interval."
    ]
    tested = [c["dice"] for c in comparisons if c["dice"]["p_value"] is not None]
    if tested:
        patients, floor = max((dice["num_patients"], dice["smallest_p_value"]) for dice in tested)
        notes.append(
            f"With {patients} patients the sign-flip test cannot give less than p = {floor:.3g}"
            + (", so no result here can reach 0.05, however large." if floor >= 0.05 else ".")
        )
    if len(tested) > 1:
        bound = 0.05 / len(tested)
        notes.append(
            f"{len(tested)} comparisons are tested and their p values are not corrected for that: where nothing "
            f"differs at all, one in twenty still falls below 0.05. Compared with p < {bound:.2g} (Bonferroni) the "
            "whole table keeps its 5 %" + (f", which {patients} patients cannot reach." if floor >= bound else ".")
        )
    return ["\n".join(f"- {table_cell(c['words'])}" for c in comparisons), *notes]


def _differences(results: CrossvalidationResults) -> list[str]:
    classes = [c["name"] for c in results["store"]["classes"][1:]]
    rows = []
    for c in results["comparisons"]:
        dice = c["dice"]
        organs = [_signed(c["per_class"].get(name), 3) for name in classes]
        p = "–" if dice["p_value"] is None else f"{dice['p_value']:.3g}"
        others = [_signed(c["others"][metric], METRICS[metric][1]) for metric in OTHERS]
        rows.append([f"{c['second']} − {c['first']}", _signed(dice, 4), p, str(dice["num_patients"]), *organs, *others])
    if not rows:
        return ["None."]
    head = ["", "Dice (95 %)", "p", "patients", *classes, *(METRICS[metric][0] for metric in OTHERS)]
    return [table(head, rows), "![Differences per patient](plots/differences.png)"]


def _signed(difference: Difference | None, digits: int) -> str:
    if difference is None or difference["mean"] is None:
        return "–"
    text = f"{difference['mean']:+.{digits}f}"
    if difference["ci95"] is not None:
        low, high = difference["ci95"]
        text += f" ({low:+.{digits}f} to {high:+.{digits}f})"
    return text


def _every_metric(results: CrossvalidationResults) -> Table:
    rows = [
        [row["name"], *(number(row["scores"][metric]["mean"], digits) for metric, (_, digits) in METRICS.items())]
        for row in results["methods"]
    ]
    return ["", *(title for title, _ in METRICS.values())], rows


def _per_class(results: CrossvalidationResults) -> Table:
    rows = []
    for row in results["methods"]:
        for name, worst in row["scores"]["dice"]["per_class_worst"].items():
            figures = [
                number(row["scores"][metric]["per_class"][name], digits) for metric, (_, digits) in METRICS.items()
            ]
            rows.append([row["name"], name, *figures, number(worst)])
    return ["", "class", *(title for title, _ in METRICS.values()), "worst Dice"], rows


def _per_case(results: CrossvalidationResults) -> Table:
    classes = [c["name"] for c in results["store"]["classes"][1:]]
    rows = []
    for fold, cases in results["store"]["folds"].items():
        for case in cases:
            for row in results["methods"]:
                dice = row["scores"]["dice"]
                if (scores := dice["per_case"].get(case)) is not None:
                    values = (dice["per_case_mean"][case], *(scores[name] for name in classes))
                    rows.append([case, fold, row["name"], *map(number, values)])
    return ["case", "fold", "", "mean", *classes], rows


def _worst_organs(results: CrossvalidationResults) -> list[str]:
    parts = []
    for row in results["methods"]:
        if row["configured"] and (worst := row["worst_organ"]):
            organ, name = table_cell(f"{worst['class']} of {worst['case']}"), table_cell(row["name"])
            parts.append(f"{name}: {organ}, Dice {number(worst['dice'])} (seed {worst['seed']}).")
            if worst["picture"]:
                parts.append(f"![{organ}]({worst['picture']})")
    return ["## The worst organ", "The lowest Dice of one class in one case by one network.", *parts] if parts else []


def _time(results: CrossvalidationResults) -> list[str]:
    rows = [row for row in results["methods"] if row["configured"] and row["time_to_accuracy"]["minutes"]]
    if not rows:
        return ["No finished run has validations."]
    targets = list(rows[0]["time_to_accuracy"]["minutes_to"])
    body = []
    for row in rows:
        time = row["time_to_accuracy"]
        reached = [number(time["minutes_to"][target], 1) for target in targets]
        body.append([row["name"], *reached, number(time["minutes"][-1], 1), number(time["dice"][-1])])
    return [
        "Minutes of training (validations included) until the mean validation Dice over all runs reaches a value, on "
        "the training grid, between validations on the straight line. A schedule that ends earlier would get there "
        "earlier: this is the time within these trainings, on the machine that they ran on.",
        table(["", *targets, "minutes in all", "Dice at the end"], body),
        "![Time to accuracy](plots/time_to_accuracy.png)",
    ]
