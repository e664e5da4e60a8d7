"""Builds the next version: embeds, indexes, learns, checks, and makes it live."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rag_flywheel.curate.source import Source
from rag_flywheel.curate.trust import calibrate
from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.build import (
    Built,
    build_indexes,
    built_indexes,
    built_texts,
    write_parameters,
    write_statistics,
)
from rag_flywheel.deploy.loaded import LoadedVersion, load_parameters, load_version
from rag_flywheel.deploy.lock import require_lock
from rag_flywheel.deploy.manifest import Manifest, Parent
from rag_flywheel.deploy.promote import make_live
from rag_flywheel.deploy.prune import CHECKPOINT, forget_progress
from rag_flywheel.deploy.shared import discard, known_versions, manifest_of
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import (
    CorruptFileError,
    EncoderNotFoundError,
    FlywheelError,
    LockedError,
    counted,
)
from rag_flywheel.evaluate.gate import Looks
from rag_flywheel.evaluate.gate_file import FILE_NAME as GATE_FILE
from rag_flywheel.evaluate.gate_file import gate_text
from rag_flywheel.evaluate.integrity import integrity_problems
from rag_flywheel.evaluate.trial import Gate, Side
from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.fit import calibrated_parameters, newest
from rag_flywheel.improve.propagate import build_memory
from rag_flywheel.improve.relevance import calibrated_relevance, with_unrelated
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.known_items import dense_trust, sampled
from rag_flywheel.index.tokenizer import VERSION as TOKENIZER
from rag_flywheel.rank.memory import Memory, load_memory, save_memory
from rag_flywheel.rank.parameters import FITTED, SHIPPED, Parameters
from rag_flywheel.rank.raters import RaterWeight, load_raters, save_raters, weights_of
from rag_flywheel.rank.stored_evidence import load_stored_evidence
from rag_flywheel.rank.stored_lookups import load_stored_lookups, save_stored_lookups
from rag_flywheel.records import Current, Judgment, RefreshReport
from rag_flywheel.refresh.examples import ExampleBuilder, judged_again
from rag_flywheel.refresh.job import RunningJob
from rag_flywheel.refresh.learn import Weights, learn_weights
from rag_flywheel.refresh.learn_again import LearnedAgain, learn_again
from rag_flywheel.refresh.looks import ARMS, votes_ever
from rag_flywheel.refresh.other_encoder import Change, Weighed, not_compared, shared_rows, weigh
from rag_flywheel.refresh.panel import Panel
from rag_flywheel.refresh.past import Past, query_vectors, read_past
from rag_flywheel.refresh.past_rows import PastRows
from rag_flywheel.refresh.raters import weighed_raters
from rag_flywheel.refresh.start import Live, Model, live_model
from rag_flywheel.refresh.stored_evidence import write_stored_evidence
from rag_flywheel.refresh.tune import Tuned, Tuning, tune_encoder
from rag_flywheel.refresh.tuned_encoder import (
    NewEncoder,
    encode_questions,
    put_queries,
    queries_of,
)
from rag_flywheel.store import forgetting, journal, passages, timeline, wall_clock
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.corpus import embed
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import Look

log = logging.getLogger("rag_flywheel")
_SAMPLE = 256  # passages that must find themselves before a version goes live
_SAMPLE_LINKED = 32  # of those whose vectors are in files of the parent, which were checked
_SAMPLE_NEW = 64  # of the others, where the parent has most


@dataclass(frozen=True)
class Learned:
    """What was learned from votes: the parameters of the next version, with their memory.

    weights, tuned: the results of the two arms of the gate, tuned None: it was not due; judged: all
    judgments on past queries; examples: the past queries, None: votes are held back; raters: the users
    who voted; again: the weights that were learned again before, None: they were not; learned_until: the
    last event whose vote the weights were fitted to, 0: they are shipped;
    n_without_words: past queries with votes that nothing was fitted to; changed: what came of weighing
    another encoder, None: it is the one before.
    """

    parameters: Parameters
    memory: Memory
    weights: Weights
    tuned: Tuned | None
    examples: Examples | None
    judged: Sequence[Judgment]
    raters: Mapping[str, RaterWeight]
    again: LearnedAgain | None
    learned_until: int
    n_without_words: int = 0
    changed: Weighed | None = None

    @property
    def new_encoder(self) -> NewEncoder | None:
        """The newly tuned encoder of queries, None without one."""
        return None if self.tuned is None else self.tuned.new

    @property
    def new(self) -> bool:
        """Whether the gate let new parameters in."""
        return self.weights.new or self.new_encoder is not None

    @property
    def arms(self) -> list[Weights | Tuned]:
        """The results of the arms of the gate that were due."""
        return [self.weights] if self.tuned is None else [self.weights, self.tuned]


def next_version(
    running: RunningJob, live: Live, began: float, change: Change | None = None
) -> RefreshReport:
    """Build the next version from everything in the store, check it, and make it live.

    Call only while holding the refresh lock. A version that fails its check is reported as rejected, and
    so is one of another encoder that the gate refuses. began: when the refresh began (time.monotonic);
    change: to the encoder of `running`, None: it is that of the live version.
    """
    root, database = running.job.root, running.job.database
    encoder, progress = running.encoder, running.job.progress
    n_embedded = _embed(running)
    staged = deploy.stage(root)
    try:
        before = live_model(root, live, encoder if change is None else change.old.encoder)
        model = Model(lost=before.lost) if running.anew else before
        if change is not None:  # weights and kernel are of the cosines of the encoder before
            model = Model(raters=before.raters)
        # passages embedded again have other vectors than those in the parent's index
        parent = _parent(root, live, encoder) if not n_embedded else None
        built, version = _indexes(running, staged, parent, model.parameters)
        version = replace(version, parameters=_with_trust(running, version))
        if running.job.published is not None:
            write_statistics(staged, version)
        rows = PastRows.of_parent(parent.folder if parent is not None and built.linked else None)
        n_questions = 0  # embedded, of all that had votes at the event that the version is built of
        if change is None:
            live_queries = running.source.under(queries_of(encoder, model))
            n_questions = encode_questions(database, live_queries, progress)
            learned = _learn(running, staged, version, live, model, before, rows)
        else:
            learned = _learn_changed(running, change, staged, version, live, before, rows)
            if learned.changed is not None and not learned.changed.allowed:
                return _refused(running, live, learned.changed, n_embedded, began)
        save_memory(learned.memory, staged)
        save_raters(learned.raters, staged)
        again = None if learned.again is None else (learned.again.why, learned.again.gate)
        gates = gate_text(
            *((arm.why, arm.gate) for arm in learned.arms),
            again=again,
            changed=None if learned.changed is None or change is None else _told(change, learned),
        )
        (staged / GATE_FILE).write_text(gates, encoding="utf-8")
        tuned = put_queries(database, running.source, staged, model, learned.new_encoder, progress)
        queries = learned.new_encoder.queries if learned.new_encoder else queries_of(encoder, model)
        until = live.votes_until(built.watermark)
        source = running.source.under(queries)
        parameters = learned.parameters
        unrelated = _builder(running, version).unrelated(source.queries, rows)
        if running.job.config.store_queries == "text":
            save_stored_lookups(rows.used, staged)
        relevance = with_unrelated(parameters.relevance, unrelated)
        if learned.examples is not None:
            parameters = replace(parameters, relevance=relevance)
            relevance = calibrated_relevance(newest(learned.examples), parameters, unrelated)
        write_parameters(staged, replace(parameters, relevance=relevance))
        write_stored_evidence(staged, database, source, learned.judged, until=until)
        manifest = _manifest(running, live, built, tuned)
        manifest = replace(manifest, learned_until=learned.learned_until)
        manifest = deploy.seal(staged, manifest, parent=parent)
        problems = version_problems(staged, database, encoder, built, version)
        if problems:
            seconds = time.monotonic() - began
            return RefreshReport("rejected", live.version, "kept", problems[0], {}, seconds)
        if running.job.published is not None:
            running.job.published.write(manifest, built_texts(version))
        log.info("refresh: read the new version back, sampled passages find themselves")
        with database.transaction() as conn:  # first: a version without its token is foreign
            require_lock(root, database, conn)
            timeline.record_build(conn, manifest.id, manifest.token)
        deploy.publish(root, staged, manifest.id)
        if running.job.indexes is not None:
            running.job.indexes.keep(manifest, version)
    finally:
        with suppress(OSError):
            deploy.unstage(root, staged)
    held = live.current is not None and live.current.held  # rebuilt, its files being damaged
    current = Current(manifest.id, live.frozen_at, held)
    with database.reading() as conn:
        looks = [
            *_withdrawn(running, learned, before, manifest.id, conn, changed=change is not None),
            *_looks(learned, manifest.id),
        ]
    try:
        make_live(root, database, "promote", current, looks, running.job.published)
    except LockedError:  # it may rest on what another process has deleted since
        discard(root, database, manifest.id)
        raise
    reason = counted(len(built.pids), "passage") + (", none changed" if built.linked else "")
    if learned.again is not None:
        reason = f"{reason}; {learned.again.why}"
    if learned.changed is not None and change is not None:
        reason = f"{reason}; {_told(change, learned)[0]}"
    scores = {"n_passages": float(len(built.pids)), "n_embedded": float(n_embedded)}
    for arm in learned.arms:
        reason, scores = f"{reason}; {arm.why}", {**scores, **arm.scores}
    if n_questions:
        reason += f"; embedded {counted(n_questions, 'question')}"
        scores["n_questions_embedded"] = float(n_questions)
    if n := learned.n_without_words:
        which = counted(n, "past query is", "past queries are")
        reason += f"; {which} stored as a hash: the votes act, but nothing is fitted to them"
        scores["n_without_words"] = float(n)
    return RefreshReport(
        "promoted",
        manifest.id,
        "new" if learned.new or change is not None else "kept",
        reason,
        scores,
        time.monotonic() - began,
        "new" if learned.new_encoder is not None or change is not None else "kept",
    )


def _refused(
    running: RunningJob, live: Live, found: Weighed, n_embedded: int, began: float
) -> RefreshReport:
    """The report on an encoder that the gate refuses, whose look is recorded."""
    with running.job.database.transaction() as conn:
        for look in _looks_of({"change": found.gate}, str(live.version)):
            journal.record_look(conn, look)
    scores = {**found.scores, "n_embedded": float(n_embedded)}
    return RefreshReport(
        "rejected", live.version, "kept", found.why, scores, time.monotonic() - began
    )


def _told(change: Change, learned: Learned) -> tuple[str, Gate | None]:
    """(what became of a change of the encoder, the gate)."""
    found = learned.changed
    assert found is not None
    why = f"encoder changed from {change.old.encoder.name}: {found.why}"
    if change.forced and (found.gate is None or not found.gate.decision.replaces):
        why = f"encoder changed by force from {change.old.encoder.name}: {found.why}"
    return why, found.gate


def _embed(running: RunningJob) -> int:
    database, encoder = running.job.database, running.encoder
    with database.reading() as conn:
        lacking = {
            t.text_hash: passages.encoded_text(t.passage)
            for t in passages.without_vector(conn, encoder.revision)
        }
    n_embedded = embed(database, encoder, lacking, running.job.progress)
    log.info("refresh: embedded %s that had no vector", counted(n_embedded, "passage"))
    return n_embedded


def _indexes(
    running: RunningJob, staged: Path, parent: Parent | None, parameters: Parameters
) -> tuple[Built, LoadedVersion]:
    """Build the indexes, from the parent's where possible, and read them back."""
    database, encoder, progress = running.job.database, running.encoder, running.job.progress
    loaded = None
    if parent is not None and running.job.indexes is not None:
        known = running.job.indexes.of(parent.manifest)
        loaded = known if isinstance(known, InMemory) else None
    try:
        built = build_indexes(
            staged,
            database,
            encoder,
            language=running.job.config.language,
            parent=parent,
            progress=progress,
            loaded=loaded,
        )
        same = loaded if built.linked else None
        version = built_indexes(staged, encoder, built, parameters, same)
        if parent is not None and not np.array_equal(version.pids, built.pids):
            raise CorruptFileError(
                f"{parent.folder} does not hold the passages that it was built of"
            )
    except CorruptFileError as error:
        if parent is None:
            raise
        # its files match the manifest, but this release cannot read them
        log.warning("refresh: the live version cannot be read, all is built anew: %s", error)
        deploy.empty(running.job.root, staged)
        return _indexes(running, staged, None, parameters)
    what = "linked the unchanged" if built.linked else "built the"
    log.info("refresh: %s indexes of %s", what, counted(len(built.pids), "passage"))
    return built, version


def _with_trust(running: RunningJob, version: LoadedVersion) -> Parameters:
    """The parameters of a new version, with how far the cosines of its texts are trusted; while no
    weights were fitted, that of `dense` follows."""
    some = version.pids[sampled(len(version.pids))]
    with running.job.database.reading() as conn:
        found = passages.rows_of(conn, some.tolist())  # also of texts that ended meanwhile
    texts = [passages.encoded_text(found[pid].passage) for pid in some.tolist()]
    vectors, tokenizer = version.engine.vectors(some), version.engine.statistics.tokenizer
    trust = dense_trust(texts, vectors, tokenizer, running.source.queries.encode)
    parameters = replace(version.parameters, trust=trust)
    if parameters.source != SHIPPED:
        return parameters
    return replace(parameters, weights=Parameters.starting(trust).weights)


def _learn(
    running: RunningJob,
    staged: Path,
    version: LoadedVersion,
    live: Live,
    model: Model,
    before: Model,
    rows: PastRows,
) -> Learned:
    """Learn from votes. While a rollback holds some back, parameters stay as they are, unless they are
    learned anew: then from the votes that count.

    model: what the next version starts from; before: the live one, the same unless all is learned anew;
    rows: of past queries, to which those are added that are looked up.
    """
    job, anew = running.job, running.anew
    database, held_back = job.database, live.frozen_at is not None and not anew
    until = live.votes_until(version.watermark)
    if not held_back:
        calibrate(database, running.source, until=until)
    source = running.source.under(queries_of(running.encoder, model))
    again, learned_until = None, before.learned_until or 0
    if anew and before.learned_until is not None:
        learned_until = min(before.learned_until, until)
        again = _learned_again(running, staged, version, until=learned_until)
        if again.parameters is not None:
            version = replace(version, parameters=again.parameters)
    builder = _builder(running, version)
    past, every, raters = _past(builder, source, model, until=until, weigh=not held_back, rows=rows)
    if held_back:
        why = "votes after the rollback stay held back until release"
        weights, tuned = Weights(version.parameters, why, {}), None
        parameters, examples = version.parameters, every
    else:
        untuned = past.vectors
        if model.tuned is not None:
            untuned = query_vectors(database, running.source.queries, past.texts)
        own = running.source
        panel = Panel(
            builder, past, untuned=untuned, source=own, live=source, until=until, examples=every
        )
        if model.lost:  # weights of before are gone, and so is what the gate's looks let in
            with database.transaction() as conn:
                forgetting.restart_looks(conn, live.version)
        if again is not None and again.parameters is None:  # one decision at a time
            weights, tuned = (
                Weights(version.parameters, "shipped weights until the next look", {}),
                None,
            )
        elif live.frozen_at is not None:
            why = "votes after the rollback stay held back until release"
            weights, tuned = Weights(version.parameters, why, {}), None
        else:
            weights, tuned = _trials(running, panel, staged)
        parameters, examples = weights.parameters, panel.examples
        if tuned is not None and tuned.new is not None:
            parameters, examples = tuned.new.parameters, tuned.new.examples
        parameters = calibrated_parameters(examples, parameters)
    memory, some = build_memory(examples, parameters), None if held_back else examples
    if again is not None and again.parameters is None:
        learned_until = 0
    if weights.new or (tuned is not None and tuned.new is not None):
        learned_until = until
    n_without_words = past.n_without_words
    learned = Learned(
        parameters,
        memory,
        weights,
        tuned,
        some,
        past.every,
        raters,
        again,
        learned_until,
        n_without_words,
    )
    if again is not None:
        log.info("refresh: %s", again.why)
    log.info("refresh: parameters %s: %s", "new" if learned.new else "kept", weights.why)
    if tuned is not None:
        log.info("refresh: %s", tuned.why)
        forget_progress(job.root)
    return learned


def _learned_again(
    running: RunningJob, staged: Path, version: LoadedVersion, *, until: int
) -> LearnedAgain:
    """Weights learned again from the votes up to event number `until`, in a version that has the shipped
    ones, with queries encoded by the untuned encoder."""
    builder, source = _builder(running, version), running.source
    past, examples, _ = _past(builder, source, Model(), until=until, weigh=True)
    panel = Panel(
        builder,
        past,
        untuned=past.vectors,
        source=source,
        live=source,
        until=until,
        examples=examples,
    )
    return learn_again(panel, staged=staged)


def _learn_changed(
    running: RunningJob,
    change: Change,
    staged: Path,
    version: LoadedVersion,
    live: Live,
    before: Model,
    rows: PastRows,
) -> Learned:
    """Learn from votes under another encoder, and weigh it against the one before. Both sides have the same
    votes, by users who are trusted alike.

    version: of the other encoder; before: the model of the live version.
    """
    database, until = running.job.database, live.votes_until(version.watermark)
    builder, source = _builder(running, version), running.source
    found = None
    if live.manifest is not None:
        try:
            found = _weighed(running, change, staged, builder, live, before, until, rows)
        except EncoderNotFoundError as error:
            if not change.forced:
                raise
            log.warning("change of the encoder: nothing is compared: %s", error)
    if found is None:
        past, examples, raters = _past(builder, source, Model(), until=until, weigh=True, rows=rows)
        nothing = live.manifest is None and not past.every
        why = "there is nothing to compare: no question has votes" if nothing else "not compared"
        allowed = nothing or change.forced
        changed = not_compared(examples, version.parameters, why, allowed=allowed)
    else:
        past, examples, raters, changed = found
    if past.n_without_words:
        which = counted(past.n_without_words, "past question is", "past questions are")
        why = f"{changed.why}; {which} stored as a hash, and cannot be encoded anew"
        changed = replace(changed, why=why)
    parameters = calibrated_parameters(examples, changed.parameters)
    if changed.allowed:
        encode_questions(database, source, running.job.progress)
    log.info("change of the encoder: %s", changed.why)
    return Learned(
        parameters,
        build_memory(examples, parameters),
        Weights(parameters, changed.fitted, changed.scores),
        None,
        examples,
        past.every,
        raters,
        None,
        until if parameters.source == FITTED else 0,
        past.n_without_words,
        changed,
    )


def _weighed(
    running: RunningJob,
    change: Change,
    staged: Path,
    builder: ExampleBuilder,
    live: Live,
    before: Model,
    until: int,
    rows: PastRows,
) -> tuple[Past, Examples, Mapping[str, RaterWeight], Weighed]:
    """The past queries as another encoder finds them, and what came of weighing it against the live version.

    builder: of examples in the version of the other encoder.
    """
    database, old, manifest = running.job.database, change.old, live.manifest
    assert manifest is not None
    folder = deploy.version_folder(running.job.root, manifest.id)
    loaded = load_version(
        folder,
        version=manifest.id,
        watermark=manifest.watermark,
        dim=manifest.dim,
        n_passages=manifest.n_passages,
        encoder=old.encoder,
    )
    old_builder = _builder(old, loaded)
    as_live = old.source.under(queries_of(old.encoder, before))
    past, found, raters = _past(
        old_builder, as_live, before, until=until, weigh=True, rows=PastRows.of_parent(folder)
    )
    untuned = past.vectors
    if before.tuned is not None:
        untuned = query_vectors(database, old.source.queries, past.texts)
    new_past = read_past(database, running.source, until=until, weights=weights_of(raters))
    examples = builder.past(new_past, rows)
    mine, theirs = shared_rows(found, examples)
    panel = Panel(
        old_builder,
        past,
        untuned=untuned,
        source=old.source,
        live=as_live,
        until=until,
        examples=found.at(mine),
    )
    if not past.every and not len(panel.judges.golden.queries):
        why = "there is nothing to compare: no question has votes or a known answer"
        changed = not_compared(examples, builder.version.parameters, why, allowed=True)
        return new_past, examples, raters, changed
    with database.reading() as conn:
        n_votes, (n_looks, _) = votes_ever(conn, past.every), journal.looks(conn, "change")
    changed = weigh(
        panel,
        examples.at(theirs),
        builder,
        running.source.queries,
        before.parameters,
        staged=staged,
        n_votes=n_votes,
        n_looks=n_looks,
    )
    return new_past, examples, raters, replace(changed, allowed=changed.allowed or change.forced)


def _past(
    builder: ExampleBuilder,
    source: Source,
    model: Model,
    *,
    until: int,
    weigh: bool,
    rows: PastRows | None = None,
) -> tuple[Past, Examples, Mapping[str, RaterWeight]]:
    """The past queries with their votes, the same as examples, and the users who voted.

    weigh: estimate how far each user is trusted, from all votes as if all users were alike; else they
    weigh as in the model. rows: as for the examples.
    """
    database = builder.database
    if not weigh:
        past = read_past(database, source, until=until, weights=weights_of(model.raters))
        return past, builder.past(past, rows), model.raters
    past = read_past(database, source, until=until)
    examples = builder.past(past, rows)
    raters = weighed_raters(database, source, examples, past, until=until)
    if weights := weights_of(raters):
        past = read_past(database, source, until=until, weights=weights, again=past)
        examples = judged_again(examples, past)
    return past, examples, raters


def _builder(running: RunningJob, version: LoadedVersion) -> ExampleBuilder:
    job = running.job
    n, tenant_key = job.config.n_candidates, job.config.tenant_key
    return ExampleBuilder(job.database, version, job.lookups, n, tenant_key, job.progress)


def _trials(running: RunningJob, panel: Panel, staged: Path) -> tuple[Weights, Tuned | None]:
    """The gate's results for new weights and, where one is due, for a tuned encoder."""
    with running.job.database.reading() as conn:
        looks, looks_at_encoders = (Looks(*journal.looks(conn, arm)) for arm in ARMS)
        n_votes = votes_ever(conn, panel.past.every)
    weights = learn_weights(panel, staged=staged, n_votes=n_votes, looks=looks)
    if running.tune == "off":
        return weights, None
    asked, checkpoint = running.tune == "asked", running.job.root / CHECKPOINT
    tuning = Tuning(running.encoder, checkpoint, running.source, looks_at_encoders, asked=asked)
    live = Side(calibrated_parameters(panel.recent_training, weights.parameters), panel.judges)
    return weights, tune_encoder(panel, live, tuning, staged=staged, n_votes=n_votes)


def _looks(learned: Learned, version: str) -> list[Look]:
    tuned, changed = learned.tuned, learned.changed
    gates = learned.weights.gate, tuned.gate if tuned is not None else None
    by_arm = dict(zip(ARMS, gates, strict=True))
    by_arm["change"] = None if changed is None else changed.gate
    decided = _looks_of(by_arm, version)
    if tuned is not None and tuned.n_votes and "encoder" not in {look.arm for look in decided}:
        # no alpha was spent, but the encoder need not be tuned to the same votes again
        decided.append(Look(version, tuned.n_votes, 0.0, None, "no better", "encoder"))
    return decided


def _looks_of(gates: Mapping[str, Gate | None], version: str) -> list[Look]:
    """The looks that the gate took at this version, by arm."""
    return [
        Look(version, g.decision.n_votes, g.decision.alpha, g.decision.p, g.decision.outcome, arm)
        for arm, g in gates.items()
        if g is not None and g.decision.look
    ]


def _withdrawn(
    running: RunningJob,
    learned: Learned,
    before: Model,
    version: str,
    conn: Connection,
    *,
    changed: bool,
) -> list[Look]:
    """What the gate had let in and is not live any more: weights that could not be learned again, and a
    tuned encoder, which the next refresh that tunes may teach again without waiting for votes."""
    found = []
    if learned.again is not None and learned.again.parameters is None:
        n_votes = journal.looks(conn, "weights")[1]
        found.append(Look(version, n_votes, 0.0, None, "withdrawn", "weights"))
    if (running.anew or changed) and before.tuned is not None:
        found.append(Look(version, 0, 0.0, None, "withdrawn", "encoder"))
    return found


def _rests_on_none_deleted(running: RunningJob, live: Live) -> str | None:
    """The newest of the live version and those before it that stays when a user is forgotten; the live
    one where nobody is being forgotten."""
    with running.job.database.reading() as conn:
        first = forgetting.first_unfinished_event(conn)
    version = live.version
    while version is not None and first is not None:
        try:
            manifest = manifest_of(running.job.root, running.job.database, version)
        except FlywheelError:
            return None
        if manifest.votes_until < first:
            break
        version = manifest.parent
    return version


def _parent(root: Path, live: Live, encoder: Encoder) -> Parent | None:
    manifest = live.manifest
    if manifest is None or (manifest.revision, manifest.dim) != (encoder.revision, encoder.dim):
        return None
    return Parent(deploy.version_folder(root, manifest.id), manifest)


def _manifest(running: RunningJob, live: Live, built: Built, tuned: str | None) -> Manifest:
    encoder = running.encoder
    root, database = running.job.root, running.job.database
    known = {*deploy.list_versions(root), *known_versions(root, database)}
    return Manifest(
        id=deploy.new_version_id(max(known, default=None)),
        created=wall_clock.now(),
        parent=_rests_on_none_deleted(running, live),
        encoder=encoder.name,
        revision=encoder.revision,
        dim=encoder.dim,
        n_passages=len(built.pids),
        watermark=built.watermark,
        votes_until=live.votes_until(built.watermark),
        token=timeline.new_token(),
        texts=built.texts,
        files={},
        tuned=tuned,
        tokenizer=TOKENIZER,
        language=running.job.config.language,
    )


def version_problems(
    staged: Path, database: Database, encoder: Encoder, built: Built, version: LoadedVersion
) -> list[str]:
    """Every problem of a staged version; version: its indexes as they were read back."""
    try:
        load_parameters(staged)
        load_memory(staged)
        load_raters(staged)
        load_stored_evidence(staged, dim=encoder.dim)
        load_stored_lookups(staged)
    except FlywheelError as error:
        return [str(error)]
    if not np.array_equal(version.pids, built.pids):
        return ["the dense index does not hold exactly the passages of the store"]
    rng = np.random.default_rng(built.watermark)
    chosen = rng.permutation(built.pids)
    if len(built.new) < len(built.pids):
        some = rng.permutation(built.new)[:_SAMPLE_NEW]
        chosen = np.union1d(chosen[:_SAMPLE_LINKED], some)
    chosen = chosen[:_SAMPLE]
    wanted, revision = chosen.tolist(), encoder.revision
    with database.reading() as conn:
        pids, vectors = vector_store.some_vectors(conn, wanted, revision, encoder.dim)
    if len(pids) != len(chosen):
        return [f"{len(chosen) - len(pids)} of {len(chosen)} sampled passages have no vector"]
    return integrity_problems(pids, vectors, version.engine.nearest, version.engine.vectors)
