"""The probe model's tokenizer: one token a known word, one a character for codes, numbers and names.

A Unigram model with a hand-made vocabulary: the words of the RULER lists with their leading space, nouns
after a hyphen, the list numerals " 1." to " 999.", the words of the prompt templates, and single characters;
bytes for everything else. Encoding is lossless, but for texts that hold the marks of the vocabulary itself
(U+2581, which reads back as a space, and byte names such as <0x41>).
"""

from __future__ import annotations

import random
import re
import string
from typing import TYPE_CHECKING, get_args

from evaluators.ruler import cwe, fwe, niah, vt
from evaluators.ruler.niah import Kind, Niah
from evaluators.ruler.noise import NOISE_SENTENCES
from evaluators.ruler.prose import prose_sentences
from evaluators.ruler.words import all_words, word_list

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = "<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>"
SPACE = "\u2581"
_LIST_NUMERALS = 999


def _template_texts() -> list[str]:
    """The fixed texts of every task, so that all words of all templates become tokens."""
    rng = random.Random(0)
    specs = [Niah("noise", "word", value, values=values) for value in get_args(Kind)[1:] for values in (1, 2)]
    drafts = [niah.draw(spec, rng, 5, ()) for spec in specs]
    drafts += [vt.draw(rng, 5), cwe.draw(rng, 70, length=1024), fwe.draw(rng, 100)]
    # Templates are the pieces of several words; a piece of one word is drawn, and must not become a token.
    texts = [piece for draft in drafts for piece in draft.pieces if len(piece.split()) > 1]
    return [
        *texts,
        " is: and",
        *(f" {sentence}" for sentence in (*NOISE_SENTENCES, *prose_sentences()[:256])),
    ]


def vocabulary() -> list[str]:
    """All pieces, specials first, without duplicates, the same on every machine."""
    pieces = dict.fromkeys((PAD, BOS, EOS, UNK))
    pieces.update(dict.fromkeys(f"<0x{byte:02X}>" for byte in range(256)))
    pieces.update(dict.fromkeys([SPACE, "\n", *string.digits, *string.ascii_letters, *string.punctuation]))
    pieces.update(dict.fromkeys([f"{SPACE}=", f"{SPACE}{fwe.NOISE}", f"{SPACE}VAR"]))
    for text in _template_texts():
        for spaced, word in re.findall(r"( ?)([A-Za-z][a-z]+)", text):
            pieces[f"{SPACE if spaced else ''}{word}"] = None
    pieces.update(dict.fromkeys(f"{SPACE}{word}" for word in ("A", "I", "a", "We", "It", "In")))
    pieces.update(dict.fromkeys(f"{SPACE}{word}" for word in all_words()))
    pieces.update(dict.fromkeys(f"-{noun}" for noun in word_list("noun")))
    pieces.update(dict.fromkeys(f"{SPACE}{number}." for number in range(1, _LIST_NUMERALS + 1)))
    return list(pieces)


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, ready to save: begins every text with BOS, ends an answer with EOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = vocabulary()
    # Fewest pieces win: a word costs one, a character ten, so that words are never spelled out.
    scores = [-10.0 if len(piece) == 1 else -30.0 if piece.startswith("<0x") else -1.0 for piece in pieces]
    model = models.Unigram(
        list(zip(pieces, scores, strict=True)), unk_id=pieces.index(UNK), byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, pieces.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )
