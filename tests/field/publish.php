<?php
// php-cli publishes with the documented snippet: one line of output for each message, "accepted BODY" or "failed BODY WHY".
// Arguments: the snippet, the URL, the topic, a name for its bodies, how many (0: until its input ends), pause in us.
[, $snippet, $url, $topic, $name, $count, $pauseUs] = $argv;
require $snippet;
stream_set_blocking(STDIN, false);
for ($i = 0; $count == 0 ? !(fread(STDIN, 1) === '' && feof(STDIN)) : $i < $count; $i++) {
    try {
        nsq_publish($topic, "$name-$i", 0, $url);
        echo "accepted $name-$i\n";
    } catch (RuntimeException $failure) {
        echo "failed $name-$i {$failure->getMessage()}\n";
    }
    usleep((int) $pauseUs);
}
