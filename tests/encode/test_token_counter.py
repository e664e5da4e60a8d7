"""Tokens are counted as the model reads them, and without loading it; the estimate is not too low."""

import subprocess
import sys
from pathlib import Path

import pytest

from rag_flywheel.encode.make import find_token_counter
from rag_flywheel.encode.named_encoder import NamedEncoder
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.formats.chunks import Chunking
from rag_flywheel.formats.markdown import cut
from rag_flywheel.formats.token_estimate import estimate_tokens
from rag_flywheel.store.encoders import Identity

pytestmark = pytest.mark.model
SPEC = "sentence-transformers:all-MiniLM-L6-v2"
ROOT = Path(__file__).parents[2]
TEXTS = {
    "english": "The service desk answers questions about passwords, invoices and parking. "
    "Electromagnetic compatibility was re-evaluated in Q3/2031 (see ADR-0054, version 2.3.1). ",
    "german": "Die Rechtsschutzversicherungsgesellschaft erstattet Übernachtungskosten nur gegen Belege. "
    "Bitte beachten Sie die Geschwindigkeitsbegrenzung auf dem Betriebsgelände. ",
    "chinese": "依赖预构建会把许多模块合并成一个文件，浏览器因此只需要一次请求。"
    "员工出差期间住宿费用由公司承担。",
    "japanese": "出張中の宿泊費は会社が負担しますので、領収書を提出してください。"
    "コンピューターをインストールする方法です。",
    "korean": "출장 중 숙박비는 회사가 부담하므로 영수증을 제출하세요. 회의실은 안내데스크에서 등록합니다. ",
    "thai": "บริษัทจ่ายค่าโรงแรมระหว่างเดินทางไปทำงานต่างจังหวัด ต้องได้รับอนุมัติจากผู้จัดการ ",
    "russian": "Расходы на проживание во время командировки оплачивает компания, предъявите квитанцию. ",
    "code": "for (const [key, v] of Object.entries(m)) { if (!a.has(key)) b.push({key, v: v?.x ?? 0}); }\n",
    "addresses": "https://example.org/docs/v2.3/reset?id=4f2a9c&lang=en#step-12 user.name@example.org ",
    "hex": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db 20240917-113045 ",
}


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.load("all-MiniLM-L6-v2")


def test_counts_are_those_of_the_model(encoder: SentenceEncoder) -> None:
    texts = ["", "one", "Ünïcode 字 🙂 [SEP]", *TEXTS.values(), "long " * 999]
    wanted = [len(encoder.model.tokenizer(text)["input_ids"]) for text in texts]
    assert encoder.count_tokens(texts) == wanted
    assert encoder.max_tokens == encoder.model.max_seq_length == 256
    counter = find_token_counter(SPEC)
    assert counter is not None
    assert (counter.count(texts), counter.max_tokens) == (wanted, 256)
    named = NamedEncoder(SPEC, Identity("n", "r", 1))
    assert (named.count_tokens(texts), named.max_tokens) == (wanted, 256)


def test_counting_loads_no_model() -> None:
    program = (
        "import sys\nfrom rag_flywheel.encode.named_encoder import NamedEncoder\n"
        "from rag_flywheel.store.encoders import Identity\n"
        f"found = NamedEncoder({SPEC!r}, Identity('n', 'r', 1)).count_tokens(['one two'])\n"
        "print(found, 'torch' in sys.modules, 'sentence_transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[4] False False"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_estimate_is_not_too_low(encoder: SentenceEncoder, text: str) -> None:
    (found,), (estimate,) = encoder.count_tokens([text * 5]), estimate_tokens([text * 5])
    assert found <= estimate
    assert estimate <= 2.5 * found or "ริ" in text  # Thai without blanks is one unknown token


@pytest.mark.parametrize("counted", [True, False])
def test_no_passage_of_these_pages_is_longer_than_the_model_reads(
    encoder: SentenceEncoder, counted: bool
) -> None:
    chunking = Chunking.for_encoder(encoder) if counted else Chunking()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [
        passage
        for page in pages
        for passage in cut(page.read_text("utf-8"), page.name, markdown=True, chunking=chunking)
    ]
    assert max(encoder.count_tokens([f"{p.title} {p.text}".strip() for p in found])) <= 256
