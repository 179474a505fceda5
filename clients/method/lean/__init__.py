"""A training step with its gradient written out: no autograd, and large memory that is allocated once.

`clients.method.training.train_epochs` is the same computation under autograd and the oracle of the tests: both agree to
float32 rounding for every method and setting. One code serves one hospital (matrices) and K hospitals side by side
(a leading axis K): `trainer` is the first, `fleet` the second.
"""
