# Where corpora lie on this machine; a recipe's local/data.sh reads its own variable and says so when it is empty.
# LRS2=/data/lrs2 ./run.sh gives one for a single run.
# with s1/ ... s34/ and alignments/, or one speaker's clips in a folder ..._s1, with its alignments in ..._s1_align beside
GRID=${GRID:-}
LRS2=${LRS2:-}
# the corpus; with --train_csv the mouth crops of auto_avsr
LRS3=${LRS3:-}
# the folder muavic/ of get_data.py's --root-path
MUAVIC=${MUAVIC:-}
VOX2=${VOX2:-}
# `downloads` marks a corpus that the recipe fetches or builds itself, below its own folder.
MINI_AV=downloads
# AV-HuBERT, converted (README.md, "Pretrained parts"); avsr_llm.sh makes it the link `avhubert_large`, the source in conf/train/*.yaml
AVHUBERT=${AVHUBERT:-}
