"""A chat template is a foreign program: what it says is used, what it may take is bounded."""

import pytest

from gti_diag.errors import InputError
from gti_train.model import chat
from gti_train.model.chat import chat_text
from gti_train.model.loading import load_language_model

PLAIN = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if enable_thinking is defined and not enable_thinking %}<none>{% endif %}{% endif %}"
    "{{ {'a': 'é'} | tojson }}"
)
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"


@pytest.fixture
def tokenizer(tiny_lm):
    return load_language_model(tiny_lm())[1]


def test_the_text_is_that_of_the_library_itself(tokenizer):
    tokenizer.chat_template = PLAIN
    for prompt in ("Which kettle? ", "two\nlines \ud800 “x”", "Ω"):
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, enable_thinking=False, tokenize=False
        )
        assert chat_text(prompt, tokenizer) == expected


@pytest.mark.parametrize("template, said", [
    (LOOPS, "more than 1 s of processor time"),
    ("{{ 9 ** (9 ** 9) }}", "more than 1 s of processor time"),
    (DOUBLING, "1.0 GB,? for one prompt"),
    ("{{ 'x' * 2000000 }}", "it makes 2,000,000 characters of one prompt"),
    ("{{ raise_exception('only [b]pairs[/b]\\n::error::x') }}", r"TemplateError: only \[b\]pairs\[/b\]↵\\u003a:error::x"),
    ("{% for %}", "TemplateSyntaxError"),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError|is unsafe"),
])  # fmt: skip
def test_a_template_that_takes_too_much_or_fails_is_refused(tokenizer, monkeypatch, template, said):
    tokenizer.chat_template = template
    monkeypatch.setattr(chat, "SECONDS", 1)
    with pytest.raises(InputError, match=rf"the chat template of .* cannot be used: .*({said}).*; mend it") as refused:
        chat_text("Which kettle?", tokenizer)
    assert "\n" not in str(refused.value)
