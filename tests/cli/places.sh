# From another folder, from an installed prefix, by $DITGEN_ASSETS; the library and its example.
. "$(dirname "$0")/lib.sh"
built_in

mkdir elsewhere
cd elsewhere || exit 1
run 0 x $TINY -s 1 -o "$T/a.y4m"
cd "$T" || exit 1

"$CMAKE" --install "$BUILD" --prefix "$T/prefix" >"$T/.out" 2>"$T/.err" || bad "cmake --install"
for f in bin/ditgen include/ditgen/ditgen.h share/ditgen/emoji/model_index.json share/ditgen/profiles/draft.ini; do
    [ -f "prefix/$f" ] || bad "no $f is installed"
done
DITGEN="$T/prefix/bin/ditgen"
run 0 x $TINY -s 1 -o b.y4m && same a.y4m b.y4m
# moved as a whole, with the source tree out of sight: the assets beside the program are the ones used
mv prefix moved
DITGEN="$T/moved/bin/ditgen"
printf '[defaults]\nsteps = 3\n' >moved/share/ditgen/emoji/ditgen.ini
run 0 x --plan --size 32x32 --frames 1 --dump-config - && printed "steps = 3"

# $DITGEN_ASSETS alone counts when it is set
DITGEN_ASSETS="$T/nothing"
export DITGEN_ASSETS
refuse 3 "DITGEN_ASSETS" x $TINY -q
mkdir nothing
cp -rs "$SOURCE/assets/emoji" nothing/emoji
rm nothing/emoji/ditgen.ini
printf '[defaults]\nsteps = 4\n' >nothing/emoji/ditgen.ini
run 0 x --plan --size 32x32 --frames 1 --dump-config - && printed "steps = 4"
unset DITGEN_ASSETS

# the example: frames by the library alone, equal to the command's
mkdir ex
cd ex || exit 1
"$EXAMPLE" "x" >"$T/.out" 2>"$T/.err" || bad "the example failed"
[ "$(ls frame_*.ppm 2>/dev/null | wc -l)" = 5 ] || bad "the example made $(ls | wc -l) files, wanted 5"
cd "$T" || exit 1
mkdir cmd
run 0 x --size 64x64 --frames 5 --steps 2 -t 1 -s 0 -o cmd/
run 0 compare cmd/ cmd/

# the installed header and library build a program; skipped where sanitizers want their own link
if [ "$SANITIZE" != ON ] && command -v pkg-config >/dev/null; then
    lib=$(dirname "$(find "$T/moved" -name ditgen.pc)")
    done=$((done + 1))
    sed -i "s|^prefix=.*|prefix=$T/moved|" "$lib/ditgen.pc"
    flags=$(PKG_CONFIG_PATH="$lib" pkg-config --cflags --libs ditgen) &&
        $CC -Wall -Werror "$SOURCE/app/lib/example.c" $flags -o ex/own 2>"$T/.err" || bad "example.c against the installed library"
    (cd ex && LD_LIBRARY_PATH="$(dirname "$lib")" ./own x 2>"$T/.err") || bad "the program against the installed library"
    static=$(PKG_CONFIG_PATH="$lib" pkg-config --cflags --libs --static ditgen | sed "s|-lditgen|-l:libditgen.a|")
    $CC "$SOURCE/app/lib/example.c" $static -o ex/static 2>"$T/.err" || bad "example.c against libditgen.a"
    (cd ex && ./static x 2>"$T/.err") || bad "the program against libditgen.a"
    nm -D --defined-only "$(dirname "$lib")"/libditgen.so | awk '{ print $3 }' | grep -v '^ditgen_' | grep -q . &&
        bad "libditgen.so exports names that are not its own"
fi
finish
