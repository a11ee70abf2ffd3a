package io.usagelakehouse;

import java.util.concurrent.ConcurrentHashMap;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SaveMode;
import org.apache.spark.sql.catalyst.util.CaseInsensitiveMap;
import org.apache.spark.sql.classic.Dataset;
import org.apache.spark.sql.delta.DeltaLog;
import org.apache.spark.sql.delta.DeltaOperations;
import org.apache.spark.sql.delta.DeltaOptions;
import org.apache.spark.sql.delta.OptimisticTransaction;
import org.apache.spark.sql.delta.actions.Action;
import org.apache.spark.sql.delta.actions.SetTransaction;
import org.apache.spark.sql.delta.commands.WriteIntoDelta;
import scala.Option;
import scala.collection.immutable.Map$;
import scala.collection.immutable.Nil$;
import scala.collection.immutable.Seq;

/**
 * An append that happens once for (application id, batch): what the options txnAppId and txnVersion do.
 *
 * To look up the id, those options rebuild the table's whole state by a query, after every commit: more than half of a
 * small append's time. Here the id is read from the checksum file that Delta writes beside each commit, and from the
 * state where there is none, for the first append of this process, and wherever the file would have the append left out or
 * forgets what this process wrote: the file is derived from the log, and a wrong one must not skip a batch or write it twice.
 * All else is Delta's own: schema check, files, statistics, conflicts, commit.
 */
public final class DeltaAppend {
  private DeltaAppend() {}

  /** No version: the table had the batch, and nothing was written. */
  private static final long SKIPPED = -1L;

  /** By table and app id the last batch that this process has written, or found in the table's state. */
  private static final ConcurrentHashMap<String, Long> SEEN = new ConcurrentHashMap<>();

  /**
   * Append `rows` unless the table has this or a later batch of `appId`; returns the version of the commit, -1 where there
   * is none.
   *
   * Fails as any write does: another schema, or a rival that committed the same id meanwhile.
   */
  public static long append(Dataset<Row> rows, String path, String appId, long batch, String userMetadata) {
    DeltaLog log = DeltaLog.forTable(rows.sparkSession(), path);
    return (Long) log.withNewTransaction(txn -> (Object) write(txn, log, rows, appId, batch, userMetadata));
  }

  private static long write(
      OptimisticTransaction txn, DeltaLog log, Dataset<Row> rows, String appId, long batch, String userMetadata) {
    // Noted as read: Delta then refuses the commit if a rival has written this id since.
    txn.readTxn().$plus$eq(appId);
    String key = log.dataPath() + "\0" + txn.snapshot().metadata().id() + "\0" + appId;
    long last = lastBatch(txn, appId, batch, SEEN.get(key));
    if (last >= batch) {
      return SKIPPED;
    }
    SEEN.put(key, last);
    long version = commit(txn, log, rows, Option.empty(), new SetTransaction(appId, batch, now()), userMetadata);
    SEEN.put(key, batch);
    return version;
  }

  /**
   * Compare and set: write `rows` and move the position that `appId` holds from `expected` (-1: none) to `next`, in one commit;
   * returns its version, -1 where the position is another one by now.
   *
   * `replaced` is a condition: the rows take the place of all that meet it. Null: they are added. The position is read from the
   * table's state, so that no derived file can have a change taken over twice, or left out.
   */
  public static long advance(
      Dataset<Row> rows, String path, String replaced, String appId, long expected, long next, String userMetadata) {
    DeltaLog log = DeltaLog.forTable(rows.sparkSession(), path);
    return (Long)
        log.withNewTransaction(
            txn -> {
              txn.readTxn().$plus$eq(appId);
              if (versionOf(txn.snapshot().setTransactions(), appId) != expected) {
                return (Object) SKIPPED;
              }
              var done = new SetTransaction(appId, next, now());
              return (Object) commit(txn, log, rows, Option.apply(replaced), done, userMetadata);
            });
  }

  private static long commit(
      OptimisticTransaction txn,
      DeltaLog log,
      Dataset<Row> rows,
      Option<String> replaced,
      SetTransaction done,
      String userMetadata) {
    var mode = replaced.isDefined() ? SaveMode.Overwrite : SaveMode.Append;
    var none = Map$.MODULE$.<String, String>empty();
    var given = replaced.isDefined() ? none.updated(DeltaOptions.REPLACE_WHERE_OPTION(), replaced.get()) : none;
    var options = new DeltaOptions(new CaseInsensitiveMap<>(given), rows.sparkSession().sessionState().conf());
    var command =
        new WriteIntoDelta(log, mode, options, emptySeq(), none, rows, Option.empty(), Option.empty(), false);
    var data = command.writeAndReturnCommitData(txn, rows.sparkSession(), Option.empty(), false);
    @SuppressWarnings("unchecked")
    Seq<Action> actions = (Seq<Action>) data.actions().$colon$plus(done);
    return txn.commit(actions, operation(mode, replaced, userMetadata), data.stringTags());
  }

  private static Option<Object> now() {
    return Option.apply(System.currentTimeMillis());
  }

  /** Last batch of the app id in the table, -1 for none; `seen`: the last one that this process knows of, or null. */
  private static long lastBatch(OptimisticTransaction txn, String appId, long batch, Long seen) {
    var checksum = txn.snapshot().checksumOpt();
    var known = checksum.isDefined() ? checksum.get().setTransactions() : Option.<Seq<SetTransaction>>empty();
    if (seen != null && known.isDefined()) {
      long last = versionOf(known.get(), appId);
      if (last >= seen && last < batch) {
        return last;
      }
    }
    return versionOf(txn.snapshot().setTransactions(), appId);
  }

  private static long versionOf(Seq<SetTransaction> all, String appId) {
    return (long) all.find(one -> one.appId().equals(appId)).map(one -> (Object) one.version()).getOrElse(() -> -1L);
  }

  private static DeltaOperations.Write operation(SaveMode mode, Option<String> replaced, String userMetadata) {
    return new DeltaOperations.Write(
        mode,
        Option.apply(emptySeq()),
        replaced,
        Option.apply(userMetadata),
        Option.empty(),
        Option.empty(),
        Option.empty(),
        Option.empty(),
        Option.empty());
  }

  @SuppressWarnings("unchecked")
  private static Seq<String> emptySeq() {
    return (Seq<String>) (Seq<?>) Nil$.MODULE$;
  }
}
