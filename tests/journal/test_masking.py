"""Secrets are not written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.journal.attempts import Attempt, Attempts
from colab_keras_bg.journal.masking import MASK, masked, masked_command
from colab_keras_bg.storage.local import LocalStorage

SECRET = "Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7"

HELD = [
    f"--hf_token={SECRET}",
    f"--password {SECRET}",
    f"HF_TOKEN={SECRET} python train.py",
    f"export AWS_SECRET_ACCESS_KEY={SECRET}",
    f'{{"api_key": "{SECRET}", "lr": 0.1}}',
    f"api-key: '{SECRET} {SECRET}'",
    f"wandb.login(key='{SECRET}')",
    f"https://example.com/data?key={SECRET}&page=2",
    f"https://me:{SECRET}@example.com/data",
    f"Authorization: Bearer {SECRET}",
    f"Bearer {SECRET}",
    f"ya29.{SECRET}",
    f"AIza{SECRET}",
    f"ghp_{SECRET}",
    f"hf_{SECRET}",
    f"sk-proj-{SECRET}",
    f"AKIA{SECRET.upper()}",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}",
    f"your password is {SECRET}",
    f"wandb: login {SECRET}",
    f"{SECRET}\n-----END OPENSSH PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", HELD, ids=range(len(HELD)))
def test_a_secret_is_masked(text: str) -> None:
    """
    What is named as a secret, or looks like one, is not left.
    """
    found = masked(f"before \n{text}\nafter")
    assert SECRET not in found
    assert SECRET.upper() not in found
    assert MASK in found
    assert found.startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=4096 lr=0.1",
        "tokens/s: 1200, loss: 0.3",
        "tokenizer=bert-base",
        "KeyError: 'loss'",
        "the password is wrong",
        "token 123456 of 500000",
        "key step_000123 saved",
        "monkey=banana keyboard=us",
        "gs://bucket/runs/a",
        "epoch 3/20  loss 0.0251  val_accuracy 99.44%",
        "use_auth_token=False",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """
    Ordinary flags, metrics and errors stay as they are.
    """
    assert text == masked(text)


@given(
    st.lists(
        st.one_of(
            st.sampled_from([*HELD, "--token", "key=", "password:", "'", '"']),
            st.text(max_size=12),
        ),
        max_size=6,
    )
)
def test_masking_twice_changes_nothing(pieces: list[str]) -> None:
    """
    What was masked is the same when it is masked again, so that commands can
    be compared in that form.
    """
    once = masked_command(pieces)
    assert once == masked_command(once)
    text = masked(" ".join(pieces))
    assert text == masked(text)


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, "key=" * 10**5, "-----BEGIN PRIVATE KEY-----" * 10**4],
    ids=["long", "keys", "beginnings"],
)
def test_hostile_text_takes_no_time(text: str) -> None:
    """
    No text makes it slow: each returns well within the limit of a test.
    """
    assert len(masked(text)) <= 3 * len(text)


def test_attempt_records_hold_no_secret(tmp_path: Path) -> None:
    """
    Neither the command nor the reason of an attempt holds one on the disk.
    """
    attempts = Attempts(LocalStorage(tmp_path))
    command = ["file", "a.py", "--password", SECRET, f"--key={SECRET}"]
    attempt = Attempt(
        number=1, started=1.0, pid=1, host="here", command=command
    )
    attempts.write(attempt)
    reason = f"HTTPError: https://me:{SECRET}@example.com"
    attempts.write(attempt.finish(ended=2.0, exit_status=1, reason=reason))
    written = (tmp_path / "attempts/0001/attempt.json").read_text()
    assert SECRET not in written
    assert json.loads(written)["command"] == [
        *("file", "a.py", "--password", MASK, f"--key={MASK}")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[33mtoken\x1b[0m=\x1b[32m'SECRETVALUE'\x1b[0m",
        "Authorization: token SECRETVALUE",
        "curl -H 'Authorization: ApiKey SECRETVALUE'",
        r"{\"refresh_token\": \"SECRETVALUE\"}",
        "https://host/o?X-Goog-Signature=SECRETVALUE&X-Goog-Date=1",
        "https://host/c?sv=1&sig=SECRETVALUE%3D",
        "password=a,SECRETVALUE;b",
        "password=p)ss&SECRETVALUE",
        "sk_live_SECRETVALUE0",
        "npm_SECRETVALUESECRETVALUE",
        "pypi-SECRETVALUESECRETVALUE",
        "https://hooks.slack.com/services/T0/B0/SECRETVALUE",
        "set-cookie: session=SECRETVALUE",
        "WANDB_API_KEY SECRETVALUE",
    ],
)
def test_in_other_clothes(text: str) -> None:
    """
    A secret that is coloured, escaped, signed or printed by others is masked.
    """
    found = masked(text)
    assert "SECRETVALUE" not in found
    assert MASK in found
    assert found == masked(found)


def test_flag_before_a_value_with_a_dash() -> None:
    """
    What follows a flag is its value, also with a dash in front.
    """
    expected = ["--password", MASK, "--epochs", "3"]
    given = ["--password", "-hunter2", "--epochs", "3"]
    assert expected == masked_command(given)
