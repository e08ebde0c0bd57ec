# Clips in a real browser: it loads, decodes and shows the default ones, and what a warning says that no
# browser plays is refused. Skipped where there is none.
. "$(dirname "$0")/lib.sh"
browser=
for b in chromium chromium-browser google-chrome; do
    command -v $b >/dev/null && { browser=$b; break; }
done
if [ -z "$browser" ] || [ "$LIBAV" != 1 ]; then
    echo "skipped: no Chromium here, or built without libav"
    exit 77
fi
# shows CLIP WORDS: what a page with the clip says when it has loaded (a video keeps it from that until
# a frame is there)
shows() {
    done=$((done + 1))
    cat >page.html <<HTML
<body><p id=r>waiting</p><video id=v muted preload=auto src="$1"></video><script>
let bad = ''; v.onerror = () => { bad = v.error ? v.error.message : 'error' };
addEventListener('load', () => { r.textContent = bad || v.readyState < 2 ? 'REFUSED ' + bad
    : 'LOADED ' + v.videoWidth + 'x' + v.videoHeight + ' ' + v.duration.toFixed(2) });
</script></body>
HTML
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
        --user-data-dir="$T/profile" --dump-dom "file://$T/page.html" >dom 2>/dev/null
    [ -s dom ] || { echo "skipped: the browser does not start here"; exit 77; }
    grep -q "<p id=\"r\">$2" dom || bad "$1: wanted '$2', the browser says $(grep -o '<p id="r">[^<]*' dom)"
}
CLIP="x --size 64x64 --frames 9 --steps 1 -t 1 -s 1"
for f in a.mp4 a.mov a.webm; do
    run 0 $CLIP -o $f
    grep -q "warning" "$T/.err" && bad "$f: a warning for a clip that all play"
    shows $f "LOADED 64x64 0.5"
done
run 0 $CLIP -o old.mp4 -c:v mpeg4
said "no browser plays it"
shows old.mp4 "REFUSED"
finish
