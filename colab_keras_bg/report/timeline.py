"""What became of the time since a run was started.

Invariant: every second between the first start and the last sign of life is
counted once: the parts of `Split` add up to its `wall_secs`, whatever the
files hold and whatever the clocks did.

What the words mean, of one attempt that began at step *f*, trained from *b*
on, gave its last sign at *e*, and had come to step *r* then:

*starting* is the time until *b*, when its first step began. *Kept* are the
steps up to the smallest step that a later attempt began at; of the newest
attempt, all of them while it runs or if the run is done, and otherwise those
up to the newest commit. The time from *b* to *e* is shared out by steps: that
of kept ones is *productive*, less what was waited for data (*input wait*) and
for saves (*save wait*), as far as that was told; that of the others is
*lost*, since they are trained again. *Waiting* is what lies between two
attempts. **Goodput** is the productive part of the whole.

Where nobody has measured what is used, the times of the reports stand in for
that; an attempt that tells of no step was only starting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from colab_keras_bg.journal.attempts import Attempt

__all__ = ["Look", "Split", "Stretch", "split_of", "stretch_of"]


@dataclass(frozen=True)
class Look:
    """One look at a training, out of what was written down.

    Attributes:
        time: When, in seconds since 1970.
        step: How far it had come.
        step_secs: How long a step took then, if that was told.
        input_wait: For which part of the time it waited for data.
        save_wait: The same, for saves.
    """

    time: float
    step: int
    step_secs: float | None = None
    input_wait: float | None = None
    save_wait: float | None = None


@dataclass(frozen=True)
class Stretch:
    """One attempt on the line of time.

    Attributes:
        number: The attempt's.
        started: When it began.
        trained: When its first step did; None if it came to none.
        ended: Its last sign of life.
        from_step: The step that it went on from, as far as that is known.
        to_step: How far it came, as far as that is known.
        kept_step: Up to where its steps were not trained again.
        is_running: Whether it is at work.
        reason: How it ended, in words.
        host: The machine.
        command: What was asked for.
        input_wait: For which part of its training it waited for data.
        save_wait: The same, for saves.
    """

    number: int
    started: float
    ended: float
    trained: float | None = None
    from_step: int | None = None
    to_step: int | None = None
    kept_step: int | None = None
    is_running: bool = False
    reason: str = ""
    host: str = ""
    command: Sequence[str] = field(default=(), repr=False)
    input_wait: float | None = None
    save_wait: float | None = None

    @property
    def secs(self) -> float:
        """How long it took."""
        return max(0.0, self.ended - self.started)

    @property
    def training_secs(self) -> float:
        """How long it trained."""
        if self.trained is None:
            return 0.0
        return max(0.0, min(self.secs, self.ended - self.trained))

    @property
    def kept_share(self) -> float:
        """Which part of its steps was kept, 0 to 1."""
        begin = self.from_step or 0
        steps = (self.to_step or 0) - begin
        if steps <= 0:
            return 1.0
        kept = self.to_step if self.kept_step is None else self.kept_step
        return min(1.0, max(0.0, ((kept or 0) - begin) / steps))

    def to_json(self) -> dict[str, Any]:
        """What there is to tell of it, as JSON values."""
        told = asdict(self)
        del told["command"]
        return told


@dataclass(frozen=True)
class Split:
    """What the time was spent on, in seconds.

    Attributes:
        productive: On steps that were kept.
        input_wait: Of their time, waiting for data.
        save_wait: Of their time, waiting for saves.
        lost: On steps that were trained again.
        starting: Before the first step of each attempt.
        waiting: Between attempts.
    """

    productive: float = 0.0
    input_wait: float = 0.0
    save_wait: float = 0.0
    lost: float = 0.0
    starting: float = 0.0
    waiting: float = 0.0

    @property
    def wall_secs(self) -> float:
        """All of it."""
        return float(sum(asdict(self).values()))

    @property
    def goodput(self) -> float | None:
        """The productive part, 0 to 1; None before anything has passed."""
        wall_secs = self.wall_secs
        return self.productive / wall_secs if wall_secs > 0 else None

    def to_json(self) -> dict[str, float]:
        """The parts, as JSON values."""
        return {name: round(secs, 3) for name, secs in asdict(self).items()}


def stretch_of(
    attempt: Attempt,
    looks: Sequence[Look],
    *,
    last_sign: float | None = None,
    step: int | None = None,
    is_running: bool = False,
    until: float | None = None,
) -> Stretch:
    """An attempt on the line of time.

    Args:
        attempt: Its record.
        looks: What was seen of it, oldest first: some of that will do, with
            the beginning and the end.
        last_sign: When it last gave a sign of life, if that is known from
            elsewhere.
        step: How far it came, if that is known from elsewhere.
        is_running: Whether it is at work.
        until: When the next one began: this one's end is not later.
    """
    started = attempt.started
    seen = [look for look in looks if look.time >= started]
    signs = [look.time for look in seen]
    if last_sign is not None:
        signs.append(last_sign)
    ended = attempt.ended
    if ended is None or ended < started:
        ended = max(signs, default=started)
    if until is not None and until >= started:
        ended = min(ended, until)
    begin = attempt.from_step
    if begin is None and seen:
        begin = seen[0].step
    steps = [look.step for look in seen]
    if step is not None:
        steps.append(step)
    reached = max(steps, default=begin)
    if reached is not None and begin is not None:
        reached = max(reached, begin)
    return Stretch(
        number=attempt.number,
        started=started,
        ended=max(started, ended),
        trained=_first_step(seen, begin, started),
        from_step=begin,
        to_step=reached,
        is_running=is_running,
        reason=_reason(attempt, is_running=is_running),
        host=attempt.host,
        command=tuple(map(str, attempt.command)),
        input_wait=_mean([look.input_wait for look in seen]),
        save_wait=_mean([look.save_wait for look in seen]),
    )


def split_of(
    stretches: Sequence[Stretch], *, kept_step: int | None = None
) -> tuple[list[Stretch], Split]:
    """What the time went into.

    Args:
        stretches: All attempts, oldest first.
        kept_step: Up to where the newest one's steps count; all of them if
            None.

    Returns:
        The attempts, now with what was kept of each, and the split.
    """
    told: list[Stretch] = []
    for stretch in reversed(stretches):
        told.append(replace(stretch, kept_step=kept_step))
        if stretch.from_step is not None:
            kept_step = min(
                stretch.from_step,
                stretch.from_step if kept_step is None else kept_step,
            )
    told.reverse()
    split, before = Split(), None
    for stretch in told:
        gap = 0.0 if before is None else stretch.started - before
        split = _added(split, stretch, gap=max(0.0, gap))
        before = max(stretch.ended, before or 0.0)
    return told, split


def _added(split: Split, stretch: Stretch, *, gap: float) -> Split:
    training = stretch.training_secs
    kept = training * stretch.kept_share
    inputs = kept * min(1.0, stretch.input_wait or 0.0)
    saves = min(kept - inputs, kept * min(1.0, stretch.save_wait or 0.0))
    return Split(
        productive=split.productive + kept - inputs - saves,
        input_wait=split.input_wait + inputs,
        save_wait=split.save_wait + saves,
        lost=split.lost + training - kept,
        starting=split.starting + stretch.secs - training,
        waiting=split.waiting + gap,
    )


def _first_step(
    looks: Sequence[Look], begin: int | None, started: float
) -> float | None:
    """When the first step began: so many steps before the first look."""
    for index, look in enumerate(looks):
        if look.step <= (begin or 0):
            continue
        secs = look.step_secs
        if secs is None:
            later = looks[-1]
            if index + 1 == len(looks) or later.step <= look.step:
                return started  # One look tells no pace.
            secs = (later.time - look.time) / (later.step - look.step)
        done = (look.step - (begin or 0)) * max(0.0, secs)
        return max(started, look.time - done)
    return None


def _reason(attempt: Attempt, *, is_running: bool) -> str:
    if is_running:
        return "running"
    if attempt.ended is None:
        return "killed, without a word"
    if attempt.exit_status in (None, 0, 75):
        return attempt.reason or "ended"
    if str(attempt.exit_status) in attempt.reason:
        return attempt.reason
    return f"{attempt.reason or 'ended'} (exit status {attempt.exit_status})"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [min(1.0, max(0.0, v)) for v in values if v is not None]
    return sum(known) / len(known) if known else None
