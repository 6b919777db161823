"""Results of `fit`: their pieces, their words, what is written and drawn of them."""
