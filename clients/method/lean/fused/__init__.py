"""The step of the default settings in a dozen kernels written in Triton.

Products are one kernel each. A program of the kernels by rows computes what one image needs between two products, from
the hospital's tensors that lie side by side; a program of the kernel that moves parameters takes some rows of one
layer's weights from gradient to new mask. Nothing is summed by atomic operations: a step has the same result in every
run. `fits` says for which models there is such a step; nothing else may be imported where Triton is missing.
"""
