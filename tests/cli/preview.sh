# --preview: a picture of the clip so far, by a map that the first decode leaves in the user's cache.
. "$(dirname "$0")/lib.sh"
export XDG_CACHE_HOME="$T/cache"
CLIP="x --size 64x64 --frames 5 --steps 30 -t 1 -s 1"

run 0 $CLIP -o a.y4m --preview p.png
said "begin with its next run"
[ -e p.png ] && bad "a preview without a map"
[ "$(ls cache/ditgen | wc -l)" = 1 ] || bad "no map is kept"
run 0 $CLIP -o b.y4m --preview p.png
[ "$(head -c 8 p.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || bad "p.png is no PNG picture"
run 0 $CLIP -q -o c.y4m
same a.y4m b.y4m
same a.y4m c.y4m
# it is an output like others; a broken map is none
refuse 2 "exists" $CLIP -q -o n.y4m --preview p.png
refuse 2 "wanted FILE.png or term" $CLIP -q -o n.y4m --preview p.jpg
refuse 2 "shows no pictures" $CLIP -q -o n.y4m --preview term
for text in "" "1 2" "nan nan nan 1 2 3" "1 2 3 4 5 6 7" "1e30 1 1 1 1 1"; do
    printf %s "$text" >"$(echo cache/ditgen/preview-*.txt)"
    run 0 x $TINY -s 1 -y -o d.y4m --preview q.png
    said "begin with its next run"
done
# nowhere to keep it: the run goes on
unset XDG_CACHE_HOME
: >plain
HOME="$T/plain" run 0 x $TINY -s 1 -y -o d.y4m --preview q.png
finish
