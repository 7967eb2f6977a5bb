"""Pretraining of the mini recipe's three frozen parts on a split of the corpus that the recipe never trains or tests on."""
