"""The hospital: data, frozen encoder and feature cache, FAM, private MLP, distillation, local training."""
