# Where corpora lie on this machine; a recipe's local/data.sh reads its own variable and says so when it is empty.
# `downloads` marks a corpus that the recipe fetches or builds itself, below its own folder.
MINI_AV=downloads
