"""`codegan reproduce`: the tables of a paper, or one of them made again."""

from data.advice import Action, Advice, Done
from data.errors import DivergedError, UsageError
from data.files.atomic import lock, write_json
from pipelines.configs import ReproduceConfig
from pipelines.reproduce.paper import AutoencoderTraining, Paper, Table, Training
from pipelines.reproduce.plan import describe, find_paper, find_table, listed, make_plan
from pipelines.reproduce.results import result_path, settings, stored_result, write_table


def reproduce(config: ReproduceConfig) -> Done | None:
    """List the tables of a paper, or train and score the rows of one and write table.md and table.json.

    A row that diverges is a result too: it is named in the table, and the others go on. Raises `UsageError` and
    `InputError` before any work, and whatever the steps raise.
    """
    paper = find_paper(config.paper)
    if config.table is None:
        print(describe_tables(paper))
        return None
    table = find_table(paper, config.table)
    if config.autoencoder and not any(_uses_codes(row.training) for row in table.rows):
        raise UsageError(f"--autoencoder: no row of table {table.name} uses one that exists", "leave it out")
    plan = make_plan(config, paper, table)

    from pipelines.reproduce.trainings import Trainings, machine  # late: loads torch, which a list does not need

    failures: dict[str, str] = {}
    with lock(plan.out):
        trainings = Trainings(plan)
        pending = [row for row in plan.rows if not stored_result(plan, row)]
        if pending:
            trainings.check()
        for number, row in enumerate(plan.rows, 1):
            print(f"\n[{number}/{len(plan.rows)}] {row.name}: {row.label}", flush=True)
            if row not in pending:
                print("is complete already")
                continue
            try:
                result = trainings.run(row)
            except DivergedError as error:
                failures[row.name] = f"diverged: {error.what}"
                print(error)
                continue
            write_json(result_path(plan, row), {"settings": settings(plan, row), **result})
            write_table(plan, failures, machine())
        wrote = write_table(plan, failures, machine())
    print(f"\n{wrote[0].read_text()}")
    run = next((each["run"] for row in plan.rows for each in stored_result(plan, row).get("trainings", ())), None)
    return Done(list(wrote), Advice(Action.REPORT, {"run": run}) if run else None)


def _uses_codes(training: Training | AutoencoderTraining | None) -> bool:
    return isinstance(training, Training) and training.factor > 1


def describe_tables(paper: Paper) -> str:
    """A line for each table: what it shows, on which data, how much is trained and how many rows can be; then the data.

    Nothing is read, and torch is not loaded.
    """
    lines = [f"{paper.authors}: {paper.title}", f"The authors had {paper.machine}.", ""]
    width = max(len(table.name) for table in paper.tables)
    lines += [f"  --table {table.name:<{width}}  {_describe(paper, table)}" for table in paper.tables]
    names = max(len(data.name) for data in paper.data)
    lines += ["", *(f"  {data.name:<{names}}  {describe(data)}" for data in paper.data), ""]
    table = paper.tables[-1]
    example = f"--table {table.name} --data {table.data[0]}=FOLDER --out runs/{paper.name}-{table.name}"
    return "\n".join([*lines, f"Example: codegan reproduce {paper.name} {example}"])


def _describe(paper: Paper, table: Table) -> str:
    trainings = [row.training for row in table.rows if row.training]
    data = table.data
    if any(map(_uses_codes, trainings)) and paper.autoencoder_data not in data:
        data = [*data, f"{paper.autoencoder_data} for the autoencoder"]
    kimg = listed(sorted({f"{training.kimg:,.0f}" for training in trainings}), "or")
    times = f" and {table.seeds} trainings" if table.seeds > 1 else ""
    amount = f"{kimg} thousand images{times} a row"
    return f"{table.title}; data: {listed(data, 'and')}; {amount}; {len(trainings)} of {len(table.rows)} rows run"
