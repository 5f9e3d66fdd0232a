"""model.py MEASURED.json [--memory GB/s]: what attention over many ranks takes, from what attend_bench_mpi has measured here.

The ring is played through, piece by piece and rank by rank, by the rules of src/mpi/ring.cpp: a piece is sent on when it is
here and the next rank has a slot for it, and worked on when all of it is here and those before it are done. So the time
that ranks wait for each other is in the result. A network is alpha (a message) and beta (its bytes); a message is looked
after when the thread that calls comes by, which is half of a block of work late on the average. Prints Markdown.
"""

import argparse
import json
import math

import numpy as np

FEATURES, VALUE_FEATURES = 128, 128
SLOTS, MESSAGE, CHUNK = 8, 1 << 16, 256
MEASURED_MESSAGE = 1 << 17
BLOCK_OPERATIONS = 5e7  # src/mpi/attention.cpp, a thread
CALL = 10e-6  # s that a call on many threads takes beside its work: assumed


def piece_keys(tokens):
    return min(2048, max(CHUNK, tokens // 8 // CHUNK * CHUNK))


def work_of(ranks, tokens, stripes, begin, end):
    """Pairs of each rank's queries and keys begin..end that see each other, causal; and its stripes that see any."""
    length = tokens / ranks / stripes
    sweep, rank = np.arange(stripes)[:, None], np.arange(ranks)[None, :]
    low = (sweep * ranks + np.where(sweep % 2 == 0, rank, ranks - 1 - rank)) * length
    high = low + length
    first, last = np.clip(low, begin, end), np.clip(high, begin, end)  # queries among these keys see those before them
    pairs = (last - first) * ((first + last) / 2 - begin) + np.maximum(0, high - np.maximum(low, end)) * (end - begin)
    return pairs.sum(0), (high > begin).sum(0)


def work_of_keys(ranks, tokens, stripes, begin, end):
    """The same where keys stay, in such stripes, and queries begin..end go by."""
    length = tokens / ranks / stripes
    sweep, rank = np.arange(stripes)[:, None], np.arange(ranks)[None, :]
    low = (sweep * ranks + np.where(sweep % 2 == 0, rank, ranks - 1 - rank)) * length
    first, last = np.clip(low, begin, end), np.clip(low + length, begin, end)
    pairs = np.clip(begin - low, 0, length) * (end - begin) + (last - first) * (end - (first + last) / 2)
    return pairs.sum(0), (low < end).sum(0)


def prefill(ranks, tokens, heads, kv_heads, rate, threads, network, owner_stripes=1, stripes=16, thread=False):
    """Seconds, and the part of them that is work. rate: operations/s of a rank."""
    return ring(ranks, tokens, kv_heads * (FEATURES + VALUE_FEATURES) * 2, 2 * heads * (FEATURES + VALUE_FEATURES), work_of,
                rate, threads, network, owner_stripes, stripes, thread, packs=True)


def gradients(ranks, tokens, heads, kv_heads, rate, threads, network, stripes=16, thread=False):
    """Seconds, and the part of them that is the work of one machine's five products. Keys in stripes as the queries."""
    of_keys, _ = ring(ranks, tokens, kv_heads * (FEATURES + VALUE_FEATURES) * 2, 2 * heads * (2 * FEATURES + VALUE_FEATURES),
                      work_of, rate, threads, network, stripes, stripes, thread)
    # A ring for each of the heads that share keys, of a query of each group.
    of_queries, _ = ring(ranks, tokens, kv_heads * ((FEATURES + VALUE_FEATURES) * 2 + 8),
                         4 * kv_heads * (FEATURES + VALUE_FEATURES), work_of_keys, rate, threads, network, stripes, stripes,
                         thread)
    seconds = of_keys + heads // kv_heads * of_queries
    return seconds, tokens**2 / 2 * 2 * heads * (3 * FEATURES + 2 * VALUE_FEATURES) / rate / ranks / seconds


def ring(ranks, tokens, bytes_of_key, operations, work_of, rate, threads, network, owner_stripes, stripes, thread, packs=False):
    alpha, beta = network
    piece = piece_keys(tokens)
    block = min(tokens / ranks / stripes * piece * operations, BLOCK_OPERATIONS * threads)
    late = 0 if thread else block / rate / 2
    hop = alpha + MESSAGE * beta + late
    # Keys are in one range a rank, or in stripes as the queries. (A stripe is 8 keys at least here.)
    owned = tokens // ranks // owner_stripes
    done = np.zeros(ranks)  # with the piece before
    link = np.zeros(ranks)  # when the link to the next rank is free
    free = [np.zeros(ranks) for _ in range(SLOTS)]  # when the piece that was in a slot has left it
    steps = np.arange(ranks - 1)
    work = 0.0
    pieces = math.ceil(tokens / piece)
    for i in range(pieces):
        begin, end = i * piece, min(tokens, (i + 1) * piece)
        slot = free[i % SLOTS]
        here, sent = slot.copy(), np.zeros(ranks)
        sweep, place = np.divmod(np.unique(np.arange(begin, end, min(owned, 8)) // owned), ranks)
        owners = np.unique(np.where(sweep % 2 == 0, place, ranks - 1 - place))
        root, bytes_of_piece = int(owners[0]), (end - begin) * bytes_of_key
        if len(owners) > 1:  # gathered first
            root = i * ranks // pieces
            here[root] = max(slot[root], slot[owners].max()) + alpha + late + bytes_of_piece * beta
        if ranks > 1:
            rank, after = (root + steps) % ranks, (root + steps + 1) % ranks
            # A rank begins to send when it has begun to receive, and its link and the next one's slot are free.
            earliest = np.maximum(link[rank], slot[after])
            earliest[0] = max(earliest[0], here[root])
            start = np.maximum.accumulate(earliest - steps * hop) + steps * hop
            whole = bytes_of_piece * beta
            here[after] = np.maximum.accumulate(start + whole + hop - steps * hop) + steps * hop
            link[rank] = start + whole
            sent[rank] = here[after]
        pairs, calls = work_of(ranks, tokens, stripes, begin, end)
        if packs and thread:  # one of the stripes for which this piece is the last, one of the others
            calls = np.minimum(calls, 2)
        done = np.maximum(done, here) + pairs * operations / rate + calls * CALL * (threads > 1)
        work += pairs.sum() * operations / rate
        free[i % SLOTS] = np.maximum(done, sent)
    return done.max(), work / ranks / done.max()


def decode(ranks, tokens, heads, kv_heads, memory, network, fold):
    """Seconds of a step of one query. memory: bytes/s of a rank; fold: s a span on the root."""
    alpha, beta = network
    spans = math.ceil(tokens / 16384)
    bytes_of_span = min(tokens, 16384) * kv_heads * (FEATURES + VALUE_FEATURES) * 2
    hops = math.ceil(math.log2(ranks)) if ranks > 1 else 0
    agree = 6 * hops * alpha
    there = 2 * hops * (alpha + heads * FEATURES * 2 * beta)  # q to all, out to all
    back = (spans - math.ceil(spans / ranks)) * heads * (VALUE_FEATURES + 2) * 4 * beta + alpha
    return agree + there + math.ceil(spans / ranks) * bytes_of_span / memory + back + spans * fold


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("measured")
    parser.add_argument("--memory", type=float, default=200, help="GB/s that a rank of 64 cores reads its memory with: assumed")
    parser.add_argument("--processors", type=int, default=2, help="of the machine that was measured")
    given = parser.parse_args()
    with open(given.measured) as lines:
        runs = [json.loads(line) for line in lines]

    # One core's rate in pieces of so many keys: of the run that was disturbed least.
    rates = {}
    of_gradients = [r for r in runs if "gradients_whole" in r]
    runs = [r for r in runs if "prefill" in r]
    for r in runs:
        if r["in_pieces"]:
            rates[r["piece"]] = max(rates.get(r["piece"], 0), 2 * FEATURES * 8 * r["tokens"] ** 2 / r["in_pieces"])

    def rate_at(piece):
        return rates[min(rates, key=lambda p: abs(p - piece))]

    print("One core, pieces of " + ", ".join(f"{p} keys: {rates[p] / 1e9:.0f} GFLOP/s" for p in sorted(rates)) + "\n")

    print("| tokens | ranks here | s | model | processor s | of one process's |\n|---|---|---|---|---|---|")
    for r in sorted(runs, key=lambda r: (r["tokens"], r["ranks"])):
        share = min(1, given.processors / r["ranks"])
        network = (r["latency"], r["message"] / MEASURED_MESSAGE)
        model, _ = prefill(r["ranks"], r["tokens"], 8, 2, rate_at(piece_keys(r["tokens"])) * share, 1, network)
        print(f"| {r['tokens']} | {r['ranks']} | {r['prefill']:.3f} | {model:.3f} | {r['processor']:.3f} | {r['processor'] / r['whole']:.2f} |")

    print("\n| tokens | ranks | network | s | of linear | with a thread | keys in 16 stripes |\n|---|---|---|---|---|---|---|")
    for tokens in (1 << 17, 1 << 18, 1 << 19, 1 << 20):
        for ranks in (64, 1024):
            for gigabits in (100, 25):
                rate = 64 * rate_at(piece_keys(tokens))
                network = (2e-6, 8 / gigabits / 1e9)
                seconds, part = prefill(ranks, tokens, 32, 8, rate, 64, network)
                _, threaded = prefill(ranks, tokens, 32, 8, rate * 63 / 64, 63, network, thread=True)
                _, striped = prefill(ranks, tokens, 32, 8, rate * 63 / 64, 63, network, thread=True, owner_stripes=16)
                print(f"| {tokens >> 10} Ki | {ranks} | {gigabits} Gb/s | {seconds:.3f} | {100 * part:.1f} % | "
                      f"{100 * threaded * 63 / 64:.1f} % | {100 * striped * 63 / 64:.1f} % |", flush=True)

    backward = max((10 * FEATURES * 4 * r["tokens"] ** 2 / r["gradients_whole"] for r in of_gradients), default=0)
    if backward:
        print(f"\nGradients, one core: {backward / 1e9:.0f} GFLOP/s\n")
        print("| tokens | ranks | network | gradients, s | of linear | with a thread |\n|---|---|---|---|---|---|")
    for tokens in (1 << 17, 1 << 18, 1 << 20) if backward else ():
        for ranks in (64, 1024):
            for gigabits in (100, 25):
                network = (2e-6, 8 / gigabits / 1e9)
                seconds, part = gradients(ranks, tokens, 32, 8, 64 * backward, 64, network)
                _, threaded = gradients(ranks, tokens, 32, 8, 63 * backward, 63, network, thread=True)
                print(f"| {tokens >> 10} Ki | {ranks} | {gigabits} Gb/s | {seconds:.3f} | {100 * part:.1f} % | "
                      f"{100 * threaded * 63 / 64:.1f} % |", flush=True)

    print("\n| tokens | ranks | decode, ms | one rank, ms |\n|---|---|---|---|")
    for tokens in (1 << 17, 1 << 18, 1 << 19, 1 << 20):
        alone = decode(1, tokens, 32, 8, given.memory * 1e9, (0, 0), 0)
        for ranks in (8, 64, 1024):
            network = (2e-6, 8 / 100 / 1e9)
            seconds = decode(ranks, tokens, 32, 8, given.memory * 1e9, network, 5e-6)
            print(f"| {tokens >> 10} Ki | {ranks} | {seconds * 1e3:.2f} | {alone * 1e3:.2f} |")


if __name__ == "__main__":
    main()
