#!/usr/bin/env python
"""Train or evaluate a network from a config file, as Detectron2's own tools/train_net.py does."""

from steatosis_d2.errors import exit_cleanly

with exit_cleanly():  # says how to get Detectron2 where it is missing
    from steatosis_d2.engine import SafeCheckpointer, Trainer
    from steatosis_d2.engine.distributed import launch_processes
    from steatosis_d2.model_zoo import get_config, get_config_file, get_weights

from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

EXAMPLES = """
examples:
  Train on one GPU, or on the CPU where there is none:
    python tools/train_net.py --config-file configs/liver/mask_rcnn_R_50_FPN.yaml
  Train on 8 GPUs:
    python tools/train_net.py --config-file configs/liver/mask_rcnn_R_50_FPN.yaml --num-gpus 8
  Train on 2 machines of 8 GPUs (the same line on each, with its rank):
    python tools/train_net.py --config-file configs/liver/mask_rcnn_R_50_FPN.yaml \\
        --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:29500
  Go on after an interruption:
    python tools/train_net.py --config-file configs/liver/starter.yaml --resume
  Evaluate a checkpoint of your own, or, without MODEL.WEIGHTS, the weights that ship:
    python tools/train_net.py --config-file configs/liver/starter.yaml --eval-only \\
        MODEL.WEIGHTS output/model_final.pth
  Begin with the weights that ship, in place of random ones:
    python tools/train_net.py --config-file configs/liver/starter.yaml \\
        MODEL.WEIGHTS steatosis-d2://liver/starter.yaml
  Your own COCO files (datasets/prepare_masks.py makes them from mask images):
    python tools/train_net.py --config-file configs/liver/starter.yaml \\
        DATASETS.TRAIN "('coco:mine/annotations/instances_train.json:mine/images',)" \\
        DATASETS.TEST "('coco:mine/annotations/instances_val.json:mine/images',)"
"""


def parse_arguments():
    parser = default_argument_parser(epilog=EXAMPLES)
    parser.description = __doc__
    arguments = parser.parse_args()
    if not arguments.config_file:
        parser.error("--config-file is required; configs/README.md lists ours")
    return arguments


def main(arguments):
    """Train or evaluate in one process; with several GPUs, this runs once for each."""
    arguments.config_file = get_config_file(arguments.config_file)
    cfg = get_config(arguments.config_file, arguments.opts)
    cfg.freeze()
    default_setup(cfg, arguments)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="steatosis_d2")
    if arguments.eval_only:
        return evaluate(cfg, arguments)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=arguments.resume)
    return trainer.train()


def evaluate(cfg, arguments):
    """Measure the last checkpoint (--resume), the config's weights, or those that ship for it."""
    model = Trainer.build_model(cfg)
    checkpointer = SafeCheckpointer(
        model, cfg.OUTPUT_DIR, allow_pickle=cfg.MODEL.ALLOW_PICKLE, strict=True
    )
    weights = cfg.MODEL.WEIGHTS
    if not weights and not (arguments.resume and checkpointer.has_checkpoint()):
        weights = get_weights(arguments.config_file)
    checkpointer.resume_or_load(weights, resume=arguments.resume)
    return Trainer.test(cfg, model)


if __name__ == "__main__":
    with exit_cleanly():
        arguments = parse_arguments()
        launch_processes(
            main,
            num_gpus=arguments.num_gpus,
            num_machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
            arguments=(arguments,),
        )
