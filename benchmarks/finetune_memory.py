"""Peak resident memory and time of one step of fine-tuning, a process an encoder; exit 1 where a bound is missed.

    python benchmarks/finetune_memory.py [--tiles 64] [--tile-px 512] [--memory-mib 1024]

Bounds, for 64 tiles of 512 px: ResNet-18 under 3 GiB, DenseNet-121 under 4 GiB.
"""

import argparse
import json
import subprocess
import sys

BOUNDS_MIB = {"resnet18": 3 * 1024, "densenet121": 4 * 1024}
STEP = """
import json, resource, sys, time, torch
from lamella.encoders import EncoderSpec
from lamella.encoders.network import build_network, pool
from lamella.finetune.gradients import backpropagate_bag, choose_chunk
from lamella.mil.heads import make_attention
name, n, px, mib = sys.argv[1], *map(int, sys.argv[2:])
network = build_network(EncoderSpec(name, "random")).requires_grad_(True)
network.to(memory_format=torch.channels_last)  # as fine-tuning has it
tiles = torch.randint(0, 256, (n, px, px, 3), dtype=torch.uint8)
last = torch.channels_last
encode = lambda x: pool(network.read_maps(x.permute(0, 3, 1, 2).float().contiguous(memory_format=last))[0])
with torch.no_grad():
    head = make_attention(encode(tiles[:1]).shape[1], 2)
def find_loss(embeddings):
    logits = head(embeddings.unsqueeze(0), torch.ones(1, len(embeddings), dtype=torch.bool)).logits
    return torch.nn.functional.cross_entropy(logits, torch.tensor([1]))
optimiser = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-5)
chunk = choose_chunk(encode, tiles, list(network.parameters()), memory_bytes=mib * 2**20)
began = time.perf_counter()
backpropagate_bag(encode, tiles, find_loss, chunk=chunk)
optimiser.step()
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"chunk": chunk, "seconds": seconds, "peak_mib": peak}))
"""


def main() -> int:
    """Measure each encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--tile-px", type=int, default=512)
    parser.add_argument("--memory-mib", type=int, default=1024)
    args = parser.parse_args()
    missed = []
    for name, bound in BOUNDS_MIB.items():
        command = [sys.executable, "-c", STEP, name, str(args.tiles), str(args.tile_px), str(args.memory_mib)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{name}: {args.tiles} tiles of {args.tile_px} px, {found['chunk']} at once, {found['seconds']:.1f} s, "
            f"peak {found['peak_mib']:.0f} MiB (bound {bound} MiB)",
            flush=True,
        )
        if found["peak_mib"] > bound:
            missed.append(name)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
