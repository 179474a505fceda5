"""One hospital's own folder: what it holds, what it insists on, what is wrong with it, and the node that runs in it."""
